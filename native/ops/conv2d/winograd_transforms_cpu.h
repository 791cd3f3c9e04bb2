// The linear maps of F(4x4, 3x3) between pixels and products, one vector of channels at a time:
// Y = A^T [(G g G^T) * (B^T d B)] A (Lavin and Gray, arXiv 1509.09308) at the points 0, ±5/8, ±3/2
// and infinity. Their powers are exact in f32, and they lose 4 times less than the usual 0, ±1, ±2
// do.
#pragma once

#include "core/avx512.h"

namespace mixpl::cpu::winograd {

constexpr int kOut = 4, kIn = 6;      // pixels of a tile's side, after and before
constexpr int kProducts = kIn * kIn;  // of a tile

#if defined(__x86_64__)

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

#endif

}  // namespace mixpl::cpu::winograd
