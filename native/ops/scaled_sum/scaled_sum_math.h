// The arithmetic of scaled_sum, once for both devices.
#pragma once

#include <cstdint>

#include "core/launch.h"

namespace mixpl {

constexpr int64_t kMostScaledTerms = 256;  // their addresses travel as arguments of a kernel

/// scale * sum / divisor in f64, so that nothing is rounded twice; no divisor when it is null.
MIXPL_HD float scaled(double sum, float scale, const float* divisor) {
  const double product = sum * scale;
  return static_cast<float>(divisor ? product / *divisor : product);
}

}  // namespace mixpl
