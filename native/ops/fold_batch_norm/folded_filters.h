// A layer's filters with its norm's scale in them, kept as long as what they are made of stays.
#pragma once

#include <array>
#include <optional>
#include <utility>

#include "core/tensor.h"

namespace mixpl {

struct FoldedFilters {
  Tensor weight, gamma, beta, mean, variance;  // see fold_batch_norm
  float eps = 0;

  std::optional<std::pair<Tensor, Tensor>> values;  // as fold_batch_norm gave them
  std::optional<std::array<uint64_t, 5>> made_of;   // versions of the tensors above, when last used
  bool used = false;                                // since refresh_filters() made them

  std::array<uint64_t, 5> versions() const {
    const auto version = [](const Tensor& t) { return t.impl()->version; };
    return {version(weight), version(gamma), version(beta), version(mean), version(variance)};
  }
};

}  // namespace mixpl
