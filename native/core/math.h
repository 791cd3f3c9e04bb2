// Elementary functions without tables or branches, so that loops over them vectorise; the same text
// serves both devices. Accuracy is checked densely against libm in
// core/math_test.cpp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// e^x within 1.2e-7 relative (2 units of the last place where the result is subnormal), 0 below
/// -104, infinity above 88.73, NaN for NaN.
/// Method: x = n ln 2 + r, |r| <= ln 2 / 2, minimax polynomial in r (3e-9), scaled by 2^n in two
/// steps.
MIXPL_HD float exp_f32(float x) {
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the integer part in the mantissa
  const float clamped = x < -105.0f ? -105.0f : (x > 89.0f ? 89.0f : x);
  const float shifted = fmaf(clamped, 1.44269504f, kRound);
  const float n = shifted - kRound;
  float r = fmaf(n, -0.693145752f, clamped);  // ln 2 in two parts, the first with trailing zeros
  r = fmaf(n, -1.42860677e-6f, r);
  float p = 0.00138144672f;
  p = fmaf(p, r, 0.00836878084f);
  p = fmaf(p, r, 0.0416683927f);
  p = fmaf(p, r, 0.166665196f);
  p = fmaf(p, r, 0.49999994f);
  p = fmaf(p * r, r, r) + 1.0f;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const int32_t half = exponent >> 1;
  const float scale1 = std::bit_cast<float>((half + 127) << 23);
  const float scale2 = std::bit_cast<float>((exponent - half + 127) << 23);
  return p * scale1 * scale2;
}

/// log(1 + e) for e in [0, 1] within 1.5e-7 relative, NaN for NaN; a minimax polynomial (5e-9).
MIXPL_HD float log1p_unit(float e) {
  float p = -0.00331846951f;
  p = fmaf(p, e, 0.020204572f);
  p = fmaf(p, e, -0.0576644205f);
  p = fmaf(p, e, 0.106805533f);
  p = fmaf(p, e, -0.153553948f);
  p = fmaf(p, e, 0.196953997f);
  p = fmaf(p, e, -0.249585867f);
  p = fmaf(p, e, 0.33330512f);
  p = fmaf(p, e, -0.499999315f);
  return fmaf(p * e, e, e);
}

}  // namespace mixpl
