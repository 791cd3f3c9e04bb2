// The arithmetic of scaled_sum, once for both devices.
#pragma once

#include <cstdint>

#include "core/launch.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {

constexpr int64_t kMostScaledTerms = 256;  // their addresses travel as arguments of a kernel

/// A Divisor as loops and kernels see it: `counted`, or `known` where it is null.
struct DivisorView {
  const float* counted;
  float known;

  explicit DivisorView(const Divisor& divisor)
      : counted(divisor.counted().defined() ? divisor.counted().data<float>() : nullptr),
        known(divisor.known()) {}
  /// scale * sum / divisor in f64, so that nothing is rounded twice.
  MIXPL_HD float scaled(double sum, float scale) const {
    return static_cast<float>(sum * scale / (counted ? *counted : known));
  }
};

}  // namespace mixpl
