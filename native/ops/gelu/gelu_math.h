// GELU and its slope, once for both devices.
//
// With a = |x| and the lower tail q = Phi(-a):  gelu(x) = max(x, 0) - a q, which loses no digits on
// either side, and the slope is Phi(x) + x phi(x) = q - a phi(a) for x < 0, 1 minus that for x > 0.
#pragma once

#include <cmath>

#include "core/math.h"

namespace mixpl {

/// Beyond it, tails are 0 in f32; keeps infinity out of products with them.
constexpr float kFarTail = 20.0f;

MIXPL_HD float tail_distance(float x) {
  const float a = fabsf(x);
  return a > kFarTail ? kFarTail : a;  // NaN stays
}

struct NormalTail {
  float cdf, density;  // Phi(-a), phi(a)
};

/// For a in [0, kFarTail]: Phi(-a) = e^(-a²/2) t P(t), t = 1 / (1 + 0.265 a), P a minimax
/// polynomial (1.4e-8 relative). The square's rounding, large as an exponent, is put back.
MIXPL_HD NormalTail normal_tail(float a) {
  const float t = 1.0f / fmaf(a, 0.265f, 1.0f);
  float p = 0.0306244828f;
  p = fmaf(p, t, -0.143300682f);
  p = fmaf(p, t, 0.215950444f);
  p = fmaf(p, t, -0.11428649f);
  p = fmaf(p, t, 0.136554956f);
  p = fmaf(p, t, 0.0608950183f);
  p = fmaf(p, t, 0.102555089f);
  p = fmaf(p, t, 0.10526678f);
  p = fmaf(p, t, 0.105740398f);
  const float square = a * a, lost = fmaf(a, a, -square);
  const float rounded = exp_f32(-0.5f * square), e = fmaf(rounded, -0.5f * lost, rounded);
  return {e * (t * p), e * 0.398942280f};
}

MIXPL_HD float gelu_from_tail(float x, float a, NormalTail tail) {
  return (x > 0.0f ? x : 0.0f) - a * tail.cdf;
}
MIXPL_HD float gelu_slope_from_tail(float x, float a, NormalTail tail) {
  const float below = tail.cdf - a * tail.density;
  return x > 0.0f ? 1.0f - below : below;
}

MIXPL_HD float gelu_of(float x) {
  const float a = tail_distance(x);
  return gelu_from_tail(x, a, normal_tail(a));
}
MIXPL_HD float gelu_slope(float x) {
  const float a = tail_distance(x);
  return gelu_slope_from_tail(x, a, normal_tail(a));
}

}  // namespace mixpl
