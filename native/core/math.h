// Elementary functions that compilers vectorise: no branches, no calls, no tables.
#pragma once

#include <bit>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// e^x in f32, within 2 ulp for -87 <= x <= 88; saturates outside; NaN stays NaN.
MIXPL_HD float exp_f32(float x) {
  const float clamped = x < -87.33f ? -87.33f : (x > 88.37f ? 88.37f : x);
  const float n = __builtin_floorf(clamped * 1.44269504f + 0.5f);
  // x - n ln 2 in two steps (Cody and Waite), then the Taylor-like minimax of Cephes' expf.
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x != x ? x : p * scale;
}

/// ln(1 + u) in f32 for 0 <= u <= 1, within 2 ulp.
MIXPL_HD float log1p_unit(float u) {
  const float v = 1.0f + u;
  const float lost = (u - (v - 1.0f)) / v;  // what rounding 1 + u dropped
  const bool high = v > 1.41421356f;
  const float m = (high ? 0.5f * v : v) - 1.0f;
  // Minimax of Cephes' logf on [sqrt(1/2) - 1, sqrt(2) - 1].
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float m2 = m * m;
  return (high ? 0.693147181f : 0.0f) + (m + (p * m * m2 - 0.5f * m2)) + lost;
}

}  // namespace mixpl
