// The sigmoid and its slope, once for both devices.
#pragma once

#include <cmath>

#include "core/math.h"

namespace mixpl {

MIXPL_HD float sigmoid_of(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

/// sigmoid(x) sigmoid(-x), from e^-|x|: neither factor loses digits as the other goes to 1.
MIXPL_HD float sigmoid_slope(float x) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e);
  return e * r * r;
}

struct Sigmoids {
  float p, q;  // sigmoid(x), sigmoid(-x)
};
MIXPL_HD Sigmoids sigmoids(float x) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e), er = e * r;
  return x >= 0.0f ? Sigmoids{r, er} : Sigmoids{er, r};
}

}  // namespace mixpl
