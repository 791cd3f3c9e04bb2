// The linear maps of F(4x4, 3x3) between pixels and products, one vector of channels at a time:
// Y = A^T [(G g G^T) * (B^T d B)] A (Lavin and Gray, arXiv 1509.09308) at the points 0, ±5/8, ±3/2
// and infinity. Their powers are exact in f32, and they lose 4 times less than the usual 0, ±1, ±2
// do.
#pragma once

#include "ops/conv2d/winograd/vector.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;

/// B^T d of one row or column: pixels d[0], d[step], … d[5 step] to v.
MIXPL_SIMD inline void pixels_to_products(const Vector* d, int step, Vector* v, int v_step) {
  const Vector d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step],
               d5 = d[5 * step];
  const Vector sum = splat(kA2 + kB2), product = splat(kA2 * kB2);
  const Vector even_a = fnmadd(splat(kB2), d2, d4);
  const Vector odd_a = fnmadd(splat(kB2), d1, d3);
  const Vector even_b = fnmadd(splat(kA2), d2, d4);
  const Vector odd_b = fnmadd(splat(kA2), d1, d3);
  v[0] = fmadd(product, d0, fnmadd(sum, d2, d4));
  v[v_step] = fmadd(splat(kA), odd_a, even_a);
  v[2 * v_step] = fnmadd(splat(kA), odd_a, even_a);
  v[3 * v_step] = fmadd(splat(kB), odd_b, even_b);
  v[4 * v_step] = fnmadd(splat(kB), odd_b, even_b);
  v[5 * v_step] = fmadd(product, d1, fnmadd(sum, d3, d5));
}

/// A^T m of one row or column: six products to four pixels.
MIXPL_SIMD inline void products_to_pixels(const Vector* m, int step, Vector* y, int y_step) {
  const Vector even_a = add(m[step], m[2 * step]);
  const Vector odd_a = sub(m[step], m[2 * step]);
  const Vector even_b = add(m[3 * step], m[4 * step]);
  const Vector odd_b = sub(m[3 * step], m[4 * step]);
  y[0] = add(m[0], add(even_a, even_b));
  y[y_step] = fmadd(splat(kA), odd_a, mul(splat(kB), odd_b));
  y[2 * y_step] = fmadd(splat(kA2), even_a, mul(splat(kB2), even_b));
  y[3 * y_step] = fmadd(splat(kA * kA2), odd_a, fmadd(splat(kB * kB2), odd_b, m[5 * step]));
}

/// G g of one row or column: three weights to six factors.
MIXPL_SIMD inline void weights_to_factors(const Vector* g, int step, Vector* u, int u_step) {
  constexpr float kAtA = 1 / (2 * kA2 * (kA2 - kB2)), kAtB = 1 / (2 * kB2 * (kB2 - kA2));
  const Vector even_a = fmadd(splat(kA2), g[2 * step], g[0]);
  const Vector even_b = fmadd(splat(kB2), g[2 * step], g[0]);
  const Vector odd_a = mul(splat(kA), g[step]);
  const Vector odd_b = mul(splat(kB), g[step]);
  u[0] = mul(splat(1 / (kA2 * kB2)), g[0]);
  u[u_step] = mul(splat(kAtA), add(even_a, odd_a));
  u[2 * u_step] = mul(splat(kAtA), sub(even_a, odd_a));
  u[3 * u_step] = mul(splat(kAtB), add(even_b, odd_b));
  u[4 * u_step] = mul(splat(kAtB), sub(even_b, odd_b));
  u[5 * u_step] = g[2 * step];
}

// A weight gradient is F(3x3, 4x4): four numbers of dy are the weights, three of dW the outputs.

/// Four numbers of a row or column of dy to six factors.
MIXPL_SIMD inline void gradient_to_factors(const Vector* g, int step, Vector* u, int u_step) {
  constexpr float kAtA = 1 / (2 * kA2 * (kA2 - kB2)), kAtB = 1 / (2 * kB2 * (kB2 - kA2));
  const Vector g0 = g[0], g1 = g[step], g2 = g[2 * step], g3 = g[3 * step];
  const Vector even_a = fmadd(splat(kA2), g2, g0);
  const Vector even_b = fmadd(splat(kB2), g2, g0);
  const Vector odd_a = mul(splat(kA), fmadd(splat(kA2), g3, g1));
  const Vector odd_b = mul(splat(kB), fmadd(splat(kB2), g3, g1));
  u[0] = mul(splat(1 / (kA2 * kB2)), g0);
  u[u_step] = mul(splat(kAtA), add(even_a, odd_a));
  u[2 * u_step] = mul(splat(kAtA), sub(even_a, odd_a));
  u[3 * u_step] = mul(splat(kAtB), add(even_b, odd_b));
  u[4 * u_step] = mul(splat(kAtB), sub(even_b, odd_b));
  u[5 * u_step] = g3;
}

/// Six products of a row or column to three weights.
MIXPL_SIMD inline void products_to_weights(const Vector* m, int step, Vector* y, int y_step) {
  const Vector even_a = add(m[step], m[2 * step]);
  const Vector odd_a = sub(m[step], m[2 * step]);
  const Vector even_b = add(m[3 * step], m[4 * step]);
  const Vector odd_b = sub(m[3 * step], m[4 * step]);
  y[0] = add(m[0], add(even_a, even_b));
  y[y_step] = fmadd(splat(kA), odd_a, mul(splat(kB), odd_b));
  y[2 * y_step] = fmadd(splat(kA2), even_a, fmadd(splat(kB2), even_b, m[5 * step]));
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
