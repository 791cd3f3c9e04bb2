// Dropout of a network: on while it trains, with a draw of its own at every place.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/dropout/dropout.h"

namespace mixpl {

/// Draws come from the pass (Context::random) and the place's number, behind the streams that samplers
/// draw from.
class Dropout {
 public:
  Dropout() = default;
  /// @param p in [0, 1); @param place no two of a network have the same, below 2^20
  Dropout(float p, uint64_t place) : p_(p), place_(place) {}

  Tensor operator()(const Tensor& x) const {
    const Context& context = Context::current();
    if (p_ <= 0 || !context.training) return x;
    constexpr uint64_t kFirst = uint64_t{1} << 20;
    return dropout(x, p_, {context.random.seed, context.random.stream + kFirst + place_});
  }

 private:
  float p_ = 0;
  uint64_t place_ = 0;
};

}  // namespace mixpl
