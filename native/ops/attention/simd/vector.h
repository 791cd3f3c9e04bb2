// What attention does with registers of floats beyond core/registers.h, whose rules hold here: the
// files of this folder are compiled once for each instruction set, by attention_*_cpu.cpp, which
// set MIXPL_VECTOR_LANES, MIXPL_SIMD and MIXPL_SIMD_NAME.
#pragma once

#include <cmath>
#include <limits>

#include "core/math.h"
#include "core/registers.h"

namespace mixpl::cpu::attention {
inline namespace MIXPL_SIMD_NAME {

using namespace registers::MIXPL_SIMD_NAME;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

#if MIXPL_VECTOR_LANES == 16

/// v in the first lanes, other in the rest.
MIXPL_SIMD inline Vector select(Lanes lanes, Vector v, Vector other) {
  return _mm512_mask_blend_ps(lanes, other, v);
}
/// Minus infinity where `mask` (bytes of the given lanes) is not 0.
MIXPL_SIMD inline Vector masked(Vector v, const uint8_t* mask, Lanes lanes) {
  const __m128i bytes = _mm_maskz_loadu_epi8(lanes, mask);
  return _mm512_mask_blend_ps(_mm_test_epi8_mask(bytes, bytes), v, splat(-kInfinity));
}
MIXPL_SIMD inline float largest(Vector v) { return _mm512_reduce_max_ps(v); }
MIXPL_SIMD inline float sum(Vector v) { return _mm512_reduce_add_ps(v); }

/// e^x as core/math.h computes it: within 1.2e-7 relative, 0 far below, NaN for NaN.
MIXPL_SIMD inline Vector exp(Vector x) {
  x = _mm512_max_ps(splat(-105.0f), x);  // the second where either is no number
  x = _mm512_min_ps(splat(89.0f), x);
  const Vector n = _mm512_roundscale_ps(_mm512_mul_ps(x, splat(1.44269504f)), 0);
  Vector r = fmadd(n, splat(-0.693145752f), x);  // ln 2 in two parts
  r = fmadd(n, splat(-1.42860677e-6f), r);
  Vector p = fmadd(splat(0.00138144672f), r, splat(0.00836878084f));
  p = fmadd(p, r, splat(0.0416683927f));
  p = fmadd(p, r, splat(0.166665196f));
  p = fmadd(p, r, splat(0.49999994f));
  p = add(fmadd(mul(p, r), r, r), splat(1.0f));
  return _mm512_scalef_ps(p, n);
}

#elif defined(MIXPL_SIMD_PORTABLE)

inline Vector select(Lanes lanes, Vector v, Vector other) {
  return each([&](int i) { return i < lanes ? v.at[i] : other.at[i]; });
}
inline Vector masked(Vector v, const uint8_t* mask, Lanes lanes) {
  return each([&](int i) {
    return i < lanes && mask[i] ? -std::numeric_limits<float>::infinity() : v.at[i];
  });
}
inline float largest(Vector v) {
  float most = v.at[0];
  for (float x : v.at) most = x > most ? x : most;
  return most;
}
inline float sum(Vector v) {
  float total = 0;
  for (float x : v.at) total += x;
  return total;
}
inline Vector exp(Vector x) {
  return each([&](int i) { return exp_f32(x.at[i]); });
}

#else

inline Vector select(Lanes lanes, Vector v, Vector other) {
  return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(lanes.mask));
}
inline Vector masked(Vector v, const uint8_t* mask, Lanes lanes) {
  __m128i bytes = _mm_setzero_si128();
  if (lanes.count == kLanes)
    bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
  else
    __builtin_memcpy(&bytes, mask, lanes.count);
  const __m256i seen = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
  return _mm256_blendv_ps(splat(-kInfinity), v, _mm256_castsi256_ps(seen));
}
inline float largest(Vector v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
inline float sum(Vector v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

inline Vector exp(Vector x) {
  x = _mm256_max_ps(splat(-105.0f), x);
  x = _mm256_min_ps(splat(89.0f), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, splat(1.44269504f)), 8);
  Vector r = fmadd(n, splat(-0.693145752f), x);
  r = fmadd(n, splat(-1.42860677e-6f), r);
  Vector p = fmadd(splat(0.00138144672f), r, splat(0.00836878084f));
  p = fmadd(p, r, splat(0.0416683927f));
  p = fmadd(p, r, splat(0.166665196f));
  p = fmadd(p, r, splat(0.49999994f));
  p = add(fmadd(mul(p, r), r, r), splat(1.0f));
  // 2^n in two steps, each of them a normal number.
  const __m256i exponent = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(exponent, 1);
  const __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(exponent, half);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return mul(mul(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

#endif

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::attention
