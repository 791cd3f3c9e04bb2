// The mathematics of the quality focal loss at the label's class, once for both devices; the other
// classes are focal_term's, with exponent beta and weight 1.
#pragma once

#include <cmath>

#include "core/math.h"
#include "ops/prob_focal_loss/prob_focal_loss_math.h"

namespace mixpl {

struct QualityTerm {
  float loss, slope;  // slope is dL/dx
};

/// |t - p|^b B with B = BCE(p, t) = max(x, 0) - x t + ln(1 + e^-|x|):
/// dL/dx = b |t - p|^(b-1) sign(p - t) p (1 - p) B + |t - p|^b (p - t).
MIXPL_HD QualityTerm quality_term(float x, float target, float beta) {
  const float e = exp_f32(-fabsf(x));
  const float r = 1.0f / (1.0f + e), er = e * r;
  const float p = x >= 0.0f ? r : er;
  const float bce = (x > 0.0f ? x : 0.0f) - x * target + log1p_unit(e);
  const float d = p - target;
  float f, df;
  power_of(fabsf(d), beta, f, df);
  return {f * bce, (d < 0.0f ? -df : df) * (r * er) * bce + f * d};
}

}  // namespace mixpl
