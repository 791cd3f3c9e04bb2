// Sines and cosines without tables or branches, so that loops over them vectorise; checked densely
// against libm in core/sines_test.cpp.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace mixpl {

/// Largest |x| that sine_and_cosine takes.
constexpr float kMostAngle = 1000;

struct SineAndCosine {
  float sine, cosine;
};

/// Both within 1e-7 for |x| <= kMostAngle; NaN for NaN, anything for what is larger.
/// Method: x = n pi / 2 + r, |r| <= pi / 4, polynomials in r (coefficients of Cephes' sinf and
/// cosf), swapped and negated by n mod 4.
inline SineAndCosine sine_and_cosine(float x) {
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the integer part in the mantissa
  const float shifted = std::fmaf(x, 0.636619772f, kRound);
  const float n = shifted - kRound;
  float r = std::fmaf(n, -1.57079637f, x);  // pi / 2 in two parts
  r = std::fmaf(n, 4.37113883e-8f, r);
  const float z = r * r;
  float s = std::fmaf(z, -1.9515295891e-4f, 8.3321608736e-3f);
  s = std::fmaf(s, z, -1.6666654611e-1f);
  s = std::fmaf(s * z, r, r);
  float c = std::fmaf(z, 2.443315711809948e-5f, -1.388731625493765e-3f);
  c = std::fmaf(c, z, 4.166664568298827e-2f);
  c = std::fmaf(c * z, z, std::fmaf(-0.5f, z, 1.0f));
  const uint32_t quarter = std::bit_cast<uint32_t>(shifted);
  const uint32_t swap = 0u - (quarter & 1u);  // all ones in odd quarters
  const uint32_t a = std::bit_cast<uint32_t>(s), b = std::bit_cast<uint32_t>(c);
  const uint32_t sine = ((a & ~swap) | (b & swap)) ^ ((quarter & 2u) << 30),
                 cosine = ((b & ~swap) | (a & swap)) ^ (((quarter + 1u) & 2u) << 30);
  return {std::bit_cast<float>(sine), std::bit_cast<float>(cosine)};
}

}  // namespace mixpl
