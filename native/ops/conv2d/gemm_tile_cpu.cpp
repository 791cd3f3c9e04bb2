#include "ops/conv2d/gemm_tile_cpu.h"

#include <array>
#include <utility>

#include "core/avx512.h"

namespace mixpl::cpu {

#if defined(__x86_64__)
namespace {

// w comes from the second-level cache, in order; so far ahead is it asked for.
constexpr int64_t kAhead = 256;

// Without the pragmas the compiler keeps the sums in memory.
template <int M, int V>
MIXPL_AVX512 void tile(const GemmTile& t) {
  __m512 sum[M][V];
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v)
      sum[m][v] = t.add ? _mm512_loadu_ps(t.y + (m * V + v) * kTileLanes) : _mm512_setzero_ps();

  // Two base pointers and three distances address 14 rows without a pointer for each.
  const int64_t one = t.x_row, three = 3 * one, five = 5 * one;
  const float *x = t.x, *x7 = x + 7 * one, *w = t.w, *next = t.next_x;
  const int64_t x_step = t.x_step, w_step = t.w_step;
  for (int64_t i = t.depth; i > 0; --i) {
    __m512 columns[V];
    _mm_prefetch(next, _MM_HINT_T1);
    for (int v = 0; v < V; ++v) {
      columns[v] = _mm512_loadu_ps(w + v * kTileLanes);
      _mm_prefetch(w + kAhead + v * kTileLanes, _MM_HINT_T0);
    }
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const int j = m % 7;
      const int64_t away = j == 3 ? three : j == 5 ? five : j == 6 ? 2 * three : j * one;
      const __m512 row = _mm512_set1_ps((m < 7 ? x : x7)[away]);
      for (int v = 0; v < V; ++v) sum[m][v] = _mm512_fmadd_ps(row, columns[v], sum[m][v]);
    }
    x += x_step, x7 += x_step, w += w_step, next += kTileLanes;
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(t.y + (m * V + v) * kTileLanes, sum[m][v]);
}

// The functions for 1, 2, … rows.
template <int V>
GemmTileFunction pick(int64_t rows) {
  static constexpr auto functions = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array{&tile<M + 1, V>...};
  }
  (std::make_integer_sequence<int, most_tile_rows(V)>{});
  return functions[rows - 1];
}

}  // namespace

GemmTileFunction gemm_tile(int64_t rows, int vectors) {
  return vectors == 1 ? pick<1>(rows) : vectors == 2 ? pick<2>(rows) : pick<3>(rows);
}

#else

GemmTileFunction gemm_tile(int64_t, int) { return nullptr; }

#endif

}  // namespace mixpl::cpu
