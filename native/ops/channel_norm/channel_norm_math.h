// The arithmetic of channel_norm. simd/rows.h has it for the CPU's registers.
#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

MIXPL_HD float normalized(float x, float mean, float scale, float shift) {
  return (x - mean) * scale + shift;
}

/// 1 / sqrt(variance + eps), in f64: eps may be far below the variance's last place.
MIXPL_HD float rstd_of(float variance, float eps) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance) + eps));
}

/// How the ReLU is undone: not at all, from the sign of the recomputed value, or from the output.
enum class NormMask { none, recompute, output };

// With d = x - mean, r = rstd, g the gradient behind the ReLU and both means taken over the `count`
// values of a group:  dx = r gamma g - r mean(gamma g) - r^3 d mean(gamma g d).

/// scale = r gamma; slope and offset are those of the group, 0 when its statistics are constants.
MIXPL_HD float norm_input_gradient(float g, float d, float scale, float slope, float offset) {
  return scale * g + slope * d + offset;
}

struct NormSlopes {
  float slope, offset;
};
/// From the sums of gamma g and of gamma g d over the group.
MIXPL_HD NormSlopes norm_slopes(double rstd, double sum_g, double sum_gd, double count) {
  return {static_cast<float>(-rstd * rstd * rstd * sum_gd / count),
          static_cast<float>(-rstd * sum_g / count)};
}

}  // namespace mixpl
