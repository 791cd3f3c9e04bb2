// The mathematics of the Gaussian focal loss, once for both devices; no loops, no allocation.
#pragma once

#include <cmath>

#include "core/math.h"

namespace mixpl {

struct HeldSigmoid {
  float p, q;          // probability and 1 - p, held in [c, 1 - c]
  float log_p, log_q;  // their logarithms
  bool held;           // then nothing moves with the logit
};

/// @param log_low, log_high ln c and ln(1 - c)
MIXPL_HD HeldSigmoid held_sigmoid(float x, float c, float log_low, float log_high) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e), er = e * r;
  const float softplus = log1p_unit(e);
  HeldSigmoid s;
  s.p = x >= 0.0f ? r : er;
  s.q = x >= 0.0f ? er : r;
  s.log_p = (x < 0.0f ? x : 0.0f) - softplus;
  s.log_q = (x > 0.0f ? -x : 0.0f) - softplus;
  const bool low = s.p < c, high = s.q < c;
  s.held = low || high;
  s.p = low ? c : high ? 1.0f - c : s.p;
  s.q = low ? 1.0f - c : high ? c : s.q;
  s.log_p = low ? log_low : high ? log_high : s.log_p;
  s.log_q = low ? log_high : high ? log_low : s.log_q;
  return s;
}

struct GaussianFocalTerm {
  float loss, slope;  // slope is dL/dlogit
};

/// p^a: kSquare when a is 2.
template <bool kSquare>
MIXPL_HD float focal_power(float p, float log_p, float a) {
  if constexpr (kSquare) return p * p;
  return exp_f32(a * log_p);
}

/// L = -q^a ln p; dL/dx = q^a (a p ln p - q), from dp/dx = p q.
template <bool kSquare>
MIXPL_HD GaussianFocalTerm gaussian_positive(const HeldSigmoid& s, float alpha) {
  const float f = focal_power<kSquare>(s.q, s.log_q, alpha);
  return {-f * s.log_p, s.held ? 0.0f : f * (alpha * s.p * s.log_p - s.q)};
}

/// L = -p^a ln q, before (1 - heat)^gamma; dL/dx = p^a (p - a q ln q).
template <bool kSquare>
MIXPL_HD GaussianFocalTerm gaussian_negative(const HeldSigmoid& s, float alpha) {
  const float f = focal_power<kSquare>(s.p, s.log_p, alpha);
  return {-f * s.log_q, s.held ? 0.0f : f * (s.p - alpha * s.q * s.log_q)};
}

}  // namespace mixpl
