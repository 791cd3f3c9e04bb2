// The arithmetic of layer_norm, once for both devices. V is float or a vector of floats.
//
// With h = (s - mean) rstd, g = gamma dy and means over the row:
// ds = rstd (g - mean(g) - h mean(g h)), dgamma = sum of dy h and dbeta = sum of dy over the rows.
#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

MIXPL_HD float layer_norm_rstd(float variance, float eps) { return 1.0f / sqrtf(variance + eps); }

template <typename V>
MIXPL_HD V layer_norm_value(V s, float mean, float rstd, V gamma, V beta) {
  return (s - mean) * rstd * gamma + beta;
}

template <typename V>
MIXPL_HD V layer_norm_slope(V g, V h, float rstd, float mean_g, float mean_gh) {
  return rstd * (g - mean_g - h * mean_gh);
}

}  // namespace mixpl
