// The linear maps of F(4x4, 3x3) between pixels and products, one vector of channels at a time:
// Y = A^T [(G g G^T) * (B^T d B)] A (Lavin and Gray, arXiv 1509.09308) at the points 0, ±5/8, ±3/2
// and infinity. Their powers are exact in f32, and they lose 4 times less than the usual 0, ±1, ±2
// do.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/avx512.h"

namespace mixpl::cpu::winograd {

constexpr int kOut = 4, kIn = 6;      // pixels of a tile's side, after and before
constexpr int kProducts = kIn * kIn;  // of a tile

#if defined(__x86_64__)

constexpr int64_t kLanes = 16;
/// A mask of the first `count` lanes.
inline __mmask16 lanes_of(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, kLanes)) - 1);
}
template <bool kBf16>
MIXPL_AVX512 inline __m512 load(const char* p, __mmask16 lanes) {
  if constexpr (!kBf16) return _mm512_maskz_loadu_ps(lanes, p);
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

MIXPL_AVX512 inline __m512 splat(float x) { return _mm512_set1_ps(x); }

/// B^T d of one row or column: pixels d[0], d[step], … d[5 step] to v.
MIXPL_AVX512 inline void pixels_to_products(const __m512* d, int step, __m512* v, int v_step) {
  const __m512 d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step],
               d5 = d[5 * step];
  const __m512 sum = splat(kA2 + kB2), product = splat(kA2 * kB2);
  const __m512 even_a = _mm512_fnmadd_ps(splat(kB2), d2, d4);
  const __m512 odd_a = _mm512_fnmadd_ps(splat(kB2), d1, d3);
  const __m512 even_b = _mm512_fnmadd_ps(splat(kA2), d2, d4);
  const __m512 odd_b = _mm512_fnmadd_ps(splat(kA2), d1, d3);
  v[0] = _mm512_fmadd_ps(product, d0, _mm512_fnmadd_ps(sum, d2, d4));
  v[v_step] = _mm512_fmadd_ps(splat(kA), odd_a, even_a);
  v[2 * v_step] = _mm512_fnmadd_ps(splat(kA), odd_a, even_a);
  v[3 * v_step] = _mm512_fmadd_ps(splat(kB), odd_b, even_b);
  v[4 * v_step] = _mm512_fnmadd_ps(splat(kB), odd_b, even_b);
  v[5 * v_step] = _mm512_fmadd_ps(product, d1, _mm512_fnmadd_ps(sum, d3, d5));
}

/// A^T m of one row or column: six products to four pixels.
MIXPL_AVX512 inline void products_to_pixels(const __m512* m, int step, __m512* y, int y_step) {
  const __m512 even_a = _mm512_add_ps(m[step], m[2 * step]);
  const __m512 odd_a = _mm512_sub_ps(m[step], m[2 * step]);
  const __m512 even_b = _mm512_add_ps(m[3 * step], m[4 * step]);
  const __m512 odd_b = _mm512_sub_ps(m[3 * step], m[4 * step]);
  y[0] = _mm512_add_ps(m[0], _mm512_add_ps(even_a, even_b));
  y[y_step] = _mm512_fmadd_ps(splat(kA), odd_a, _mm512_mul_ps(splat(kB), odd_b));
  y[2 * y_step] = _mm512_fmadd_ps(splat(kA2), even_a, _mm512_mul_ps(splat(kB2), even_b));
  y[3 * y_step] =
      _mm512_fmadd_ps(splat(kA * kA2), odd_a, _mm512_fmadd_ps(splat(kB * kB2), odd_b, m[5 * step]));
}

/// G g of one row or column: three weights to six factors.
MIXPL_AVX512 inline void weights_to_factors(const __m512* g, int step, __m512* u, int u_step) {
  constexpr float kAtA = 1 / (2 * kA2 * (kA2 - kB2)), kAtB = 1 / (2 * kB2 * (kB2 - kA2));
  const __m512 even_a = _mm512_fmadd_ps(splat(kA2), g[2 * step], g[0]);
  const __m512 even_b = _mm512_fmadd_ps(splat(kB2), g[2 * step], g[0]);
  const __m512 odd_a = _mm512_mul_ps(splat(kA), g[step]);
  const __m512 odd_b = _mm512_mul_ps(splat(kB), g[step]);
  u[0] = _mm512_mul_ps(splat(1 / (kA2 * kB2)), g[0]);
  u[u_step] = _mm512_mul_ps(splat(kAtA), _mm512_add_ps(even_a, odd_a));
  u[2 * u_step] = _mm512_mul_ps(splat(kAtA), _mm512_sub_ps(even_a, odd_a));
  u[3 * u_step] = _mm512_mul_ps(splat(kAtB), _mm512_add_ps(even_b, odd_b));
  u[4 * u_step] = _mm512_mul_ps(splat(kAtB), _mm512_sub_ps(even_b, odd_b));
  u[5 * u_step] = g[2 * step];
}

// A weight gradient is F(3x3, 4x4): four numbers of dy are the weights, three of dW the outputs.

/// Four numbers of a row or column of dy to six factors.
MIXPL_AVX512 inline void gradient_to_factors(const __m512* g, int step, __m512* u, int u_step) {
  constexpr float kAtA = 1 / (2 * kA2 * (kA2 - kB2)), kAtB = 1 / (2 * kB2 * (kB2 - kA2));
  const __m512 g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step];
  const __m512 even_a = _mm512_fmadd_ps(splat(kA2), g2, g0);
  const __m512 even_b = _mm512_fmadd_ps(splat(kB2), g2, g0);
  const __m512 odd_a = _mm512_mul_ps(splat(kA), _mm512_fmadd_ps(splat(kA2), g3, g1));
  const __m512 odd_b = _mm512_mul_ps(splat(kB), _mm512_fmadd_ps(splat(kB2), g3, g1));
  u[0] = _mm512_mul_ps(splat(1 / (kA2 * kB2)), g0);
  u[u_step] = _mm512_mul_ps(splat(kAtA), _mm512_add_ps(even_a, odd_a));
  u[2 * u_step] = _mm512_mul_ps(splat(kAtA), _mm512_sub_ps(even_a, odd_a));
  u[3 * u_step] = _mm512_mul_ps(splat(kAtB), _mm512_add_ps(even_b, odd_b));
  u[4 * u_step] = _mm512_mul_ps(splat(kAtB), _mm512_sub_ps(even_b, odd_b));
  u[5 * u_step] = g3;
}

/// Six products of a row or column to three weights.
MIXPL_AVX512 inline void products_to_weights(const __m512* m, int step, __m512* y, int y_step) {
  const __m512 even_a = _mm512_add_ps(m[step], m[2 * step]);
  const __m512 odd_a = _mm512_sub_ps(m[step], m[2 * step]);
  const __m512 even_b = _mm512_add_ps(m[3 * step], m[4 * step]);
  const __m512 odd_b = _mm512_sub_ps(m[3 * step], m[4 * step]);
  y[0] = _mm512_add_ps(m[0], _mm512_add_ps(even_a, even_b));
  y[y_step] = _mm512_fmadd_ps(splat(kA), odd_a, _mm512_mul_ps(splat(kB), odd_b));
  y[2 * y_step] =
      _mm512_fmadd_ps(splat(kA2), even_a, _mm512_fmadd_ps(splat(kB2), even_b, m[5 * step]));
}

/// Number j of rows[i] becomes number i of rows[j].
MIXPL_AVX512 inline void transpose(__m512i (&rows)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      rows[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  // Now a quarter of rows[4 i + j] is numbers 4 i … 4 i + 3 of result j, 4 + j, 8 + j or 12 + j.
  for (int j = 0; j < 4; ++j) {
    const __m512i even_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
    const __m512i even_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
    const __m512i odd_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    t[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

#endif

}  // namespace mixpl::cpu::winograd
