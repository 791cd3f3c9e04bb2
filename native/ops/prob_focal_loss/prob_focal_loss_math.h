// The mathematics of focal losses of probabilities, once for both devices.
#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

struct ProbTerm {
  float loss, slope;  // slope is dL/dp
};

struct HeldProbability {
  float p, q, log_p, log_q;  // q = 1 - p
};

/// What f32 tells apart: p >= 1e-37, 1 - p >= 2^-25. NaN stays NaN.
MIXPL_HD HeldProbability held_probability(float p) {
  const float low = p < 1e-37f ? 1e-37f : p;
  const float q = 1.0f - low < 2.98023224e-8f ? 2.98023224e-8f : 1.0f - low;
  return {low, q, logf(low), low < 0.5f ? log1pf(-low) : logf(q)};
}

/// x^n and its derivative n x^(n-1), x >= 0.
MIXPL_HD void power_of(float x, float n, float& value, float& slope) {
  if (n == 2.0f) {
    value = x * x;
    slope = 2.0f * x;
  } else if (n == 0.0f) {
    value = 1;
    slope = 0;
  } else {
    value = powf(x, n);
    slope = x > 0.0f ? n * value / x : n == 1.0f ? 1.0f : 0.0f;
  }
}

/// -q^g ln p
MIXPL_HD ProbTerm prob_focal_positive(const HeldProbability& h, float gamma) {
  float f, df;
  power_of(h.q, gamma, f, df);
  return {-f * h.log_p, df * h.log_p - f / h.p};
}

/// -p^g ln q
MIXPL_HD ProbTerm prob_focal_negative(const HeldProbability& h, float gamma) {
  float f, df;
  power_of(h.p, gamma, f, df);
  return {-f * h.log_q, -df * h.log_q + f / h.q};
}

/// |t - p|^b (-t ln p - (1 - t) ln q)
MIXPL_HD ProbTerm prob_quality_positive(const HeldProbability& h, float target, float beta) {
  float f, df;
  const float d = h.p - target;
  power_of(fabsf(d), beta, f, df);
  const float bce = -target * h.log_p - (1.0f - target) * h.log_q;
  return {f * bce, (d < 0.0f ? -df : df) * bce + f * ((1.0f - target) / h.q - target / h.p)};
}

}  // namespace mixpl
