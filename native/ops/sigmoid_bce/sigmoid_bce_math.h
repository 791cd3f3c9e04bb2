// The mathematics of the sigmoid cross-entropy, once for both devices.
#pragma once

#include "core/math.h"

namespace mixpl {

struct BceTerm {
  float loss, slope;  // slope is dL/dx
};

MIXPL_HD float sigmoid_f32(float x) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e);
  return x >= 0.0f ? r : e * r;
}

MIXPL_HD BceTerm sigmoid_bce_term(float x, float target) {
  const float e = exp_f32(-fabsf(x));
  const float r = 1.0f / (1.0f + e);
  return {(x > 0.0f ? x : 0.0f) - x * target + log1p_unit(e), (x >= 0.0f ? r : e * r) - target};
}

}  // namespace mixpl
