// The innermost loop of Winograd's convolutions: rows of x times a panel of w, all sums in
// registers.
#pragma once

#include <array>
#include <utility>

#include "ops/conv2d/winograd/vector.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

/// y[row, column] (+)= sum over depth of x[row, depth] w[depth, column], in order of depth.
struct GemmTile {
  const float* x;
  int64_t x_row, x_step;  // numbers from a row, a step of depth, to the next
  int64_t depth;
  const float* w;
  int64_t w_step;
  const float* next_x;  // what the next tile reads: asked for, a vector a step of depth
  float* y;             // [row][column]
  bool add;
};

using GemmTileFunction = void (*)(const GemmTile&);

/// Most rows of a tile of 1, 2 or 3 vectors of columns: what 32 or 16 registers hold.
constexpr int most_tile_rows(int vectors) {
  if (kLanes == 16) return vectors == 3 ? 9 : 14;
  return vectors == 3 ? 4 : vectors == 2 ? 6 : 12;
}

// w comes from the second-level cache, in order; so far ahead is it asked for.
constexpr int64_t kAhead = 256;

// Without the pragmas the compiler keeps the sums in memory.
template <int M, int V>
MIXPL_SIMD void tile(const GemmTile& t) {
  Vector sum[M][V];
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[m][v] = t.add ? load(t.y + (m * V + v) * kLanes) : splat(0);

  // Two base pointers and three distances address 14 rows without a pointer for each.
  const int64_t one = t.x_row, three = 3 * one, five = 5 * one;
  const float *x = t.x, *x7 = x + 7 * one, *w = t.w, *next = t.next_x;
  const int64_t x_step = t.x_step, w_step = t.w_step;
  for (int64_t i = t.depth; i > 0; --i) {
    Vector columns[V];
    _mm_prefetch(next, _MM_HINT_T1);
    for (int v = 0; v < V; ++v) {
      columns[v] = load(w + v * kLanes);
      _mm_prefetch(w + kAhead + v * kLanes, _MM_HINT_T0);
    }
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const int j = m % 7;
      const int64_t away = j == 3 ? three : j == 5 ? five : j == 6 ? 2 * three : j * one;
      const Vector row = splat((m < 7 ? x : x7)[away]);
      for (int v = 0; v < V; ++v) sum[m][v] = fmadd(row, columns[v], sum[m][v]);
    }
    x += x_step, x7 += x_step, w += w_step, next += kLanes;
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) store(t.y + (m * V + v) * kLanes, sum[m][v]);
}

// The functions for 1, 2, … rows.
template <int V>
inline GemmTileFunction pick(int64_t rows) {
  static constexpr auto functions = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array{&tile<M + 1, V>...};
  }
  (std::make_integer_sequence<int, most_tile_rows(V)>{});
  return functions[rows - 1];
}

/// The function for 1 … most_tile_rows(vectors) rows and 1 … 3 vectors.
inline GemmTileFunction gemm_tile(int64_t rows, int vectors) {
  return vectors == 1 ? pick<1>(rows) : vectors == 2 ? pick<2>(rows) : pick<3>(rows);
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
