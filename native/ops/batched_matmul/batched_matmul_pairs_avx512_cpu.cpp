// Batched products of bf16 with AVX-512's dot products: two terms of a sum at a time, in pairs of
// neighbours along the reduction. Sums are in order of the pairs, whatever is shared how.
#include "ops/batched_matmul/batched_matmul_kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 16
#define MIXPL_SIMD MIXPL_AVX512_BF16
#define MIXPL_SIMD_NAME avx512
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "core/parallel.h"
#include "core/registers.h"

namespace mixpl::cpu::batched_matmul {
namespace {

using namespace registers::avx512;

constexpr int kTileRows = 14;  // of two vectors of columns: 28 of 32 registers
constexpr int64_t kTileColumns = 2 * kLanes;
constexpr int64_t kBlockRows = 8 * kTileRows;  // that a thread works out in one go

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
int64_t pairs_of(int64_t depth) { return (depth + 1) / 2; }

/// Two neighbours of a sum, the first one in the low half; read out of bf16 in memory, too.
typedef uint32_t __attribute__((may_alias)) Pair;

/// Left factor of one batch: pair `step` of a row, in numbers of pairs.
struct LeftPairs {
  const Pair* x;
  int64_t row, step;
};

/// The tile's sums, rounded, to rows of `pitch` numbers, the last vector's `lanes` alone.
template <int M, int V>
MIXPL_AVX512_BF16 void tile(const LeftPairs& left, const Pair* w, int64_t pairs, bfloat16* y,
                            int64_t pitch, Lanes lanes) {
  Vector sums[M][V];
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[m][v] = splat(0);

  // Two base pointers and three distances address 14 rows without a pointer for each.
  const int64_t one = left.row, three = 3 * one, five = 5 * one, step = left.step;
  const Pair *x = left.x, *x7 = x + 7 * one;
  for (int64_t i = pairs; i > 0; --i) {
    __m512i columns[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) columns[v] = _mm512_loadu_si512(w + v * kLanes);
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const int j = m % 7;
      const int64_t away = j == 3 ? three : j == 5 ? five : j == 6 ? 2 * three : j * one;
      const __m512i row = _mm512_set1_epi32(static_cast<int>((m < 7 ? x : x7)[away]));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        sums[m][v] = _mm512_dpbf16_ps(sums[m][v], reinterpret_cast<__m512bh>(row),
                                      reinterpret_cast<__m512bh>(columns[v]));
    }
    x += step, x7 += step, w += V * kLanes;
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store(y + m * pitch + v * kLanes, v + 1 == V ? lanes : lanes_of(kLanes), sums[m][v]);
}

using TileFunction = void (*)(const LeftPairs&, const Pair*, int64_t, bfloat16*, int64_t, Lanes);
template <int V>
TileFunction tile_of(int64_t rows) {
  static constexpr auto functions = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array{&tile<M + 1, V>...};
  }
  (std::make_integer_sequence<int, kTileRows>{});
  return functions[rows - 1];
}

/// Rows 2 i and 2 i + 1 of [depth, columns] as a row of pairs, `width` of them from `first` on.
MIXPL_AVX512_BF16 void pair_rows(const bfloat16* from, int64_t depth, int64_t columns,
                                 int64_t first, int64_t width, Pair* to) {
  for (int64_t d = 0; d < depth; d += 2)
    for (int64_t c = 0; c < width; c += kLanes) {
      const Lanes lanes = lanes_of(columns - first - c);
      const bfloat16* low = from + d * columns + first + c;
      __m512i pair = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, low));
      if (d + 1 < depth)
        pair = _mm512_or_si512(
            pair, _mm512_slli_epi32(
                      _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, low + columns)), 16));
      _mm512_storeu_si512(to + d / 2 * width + c, pair);
    }
}

/// Pairs of the rows [first, first + width) of [rows, depth], turned: [pairs][width].
MIXPL_AVX512_BF16 void pair_columns(const bfloat16* from, int64_t rows, int64_t depth,
                                    int64_t first, int64_t width, Pair* to) {
  const int64_t pairs = pairs_of(depth);
  for (int64_t column = 0; column < width; column += kLanes)
    for (int64_t p = 0; p < pairs; p += kLanes) {
      const int64_t left = std::min<int64_t>(depth - 2 * p, 32);
      const __mmask32 there = static_cast<__mmask32>((uint64_t{1} << left) - 1);
      Vector square[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t row = first + column + i;
        square[i] =
            row < rows
                ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(there, from + row * depth + 2 * p))
                : splat(0);
      }
      transpose(square);
      for (int64_t i = 0; i < std::min(kLanes, pairs - p); ++i)
        _mm512_storeu_si512(to + (p + i) * width + column, _mm512_castps_si512(square[i]));
    }
}

/// Panels [pairs][kTileColumns] of a right factor, the last as wide as its vectors.
void pack_right(const BatchedFactor& f, int64_t batch, Pair* to) {
  const int64_t depth = f.rows(), columns = f.columns();
  const bfloat16* from = f.matrices.data<bfloat16>() + batch * depth * columns;
  for (int64_t first = 0; first < columns; first += kTileColumns) {
    const int64_t width = std::min(kTileColumns, padded(columns - first));
    Pair* panel = to + first * pairs_of(depth);
    if (f.turned)
      pair_columns(from, columns, depth, first, width, panel);
    else
      pair_rows(from, depth, columns, first, width, panel);
  }
}

/// Read where it lies, if its rows are whole pairs; packed otherwise.
LeftPairs pack_left(const BatchedFactor& f, int64_t batch, Pair* packed) {
  const int64_t rows = f.rows(), depth = f.columns();
  const bfloat16* from = f.matrices.data<bfloat16>() + batch * rows * depth;
  if (f.turned) {
    pair_rows(from, depth, rows, 0, padded(rows), packed);
    return {packed, 1, padded(rows)};
  }
  const int64_t pairs = pairs_of(depth);
  if (depth % 2 == 0) return {reinterpret_cast<const Pair*>(from), pairs, 1};
  for (int64_t row = 0; row < rows; ++row) {
    packed[row * pairs + pairs - 1] = 0;
    std::memcpy(packed + row * pairs, from + row * depth, depth * sizeof(bfloat16));
  }
  return {packed, pairs, 1};
}

void product_items(const BatchedFactor& left, const BatchedFactor& right, Tensor& y, int64_t begin,
                   int64_t end) {
  const int64_t rows = left.rows(), depth = left.columns(), columns = right.columns();
  const int64_t pairs = pairs_of(depth), blocks = (rows + kBlockRows - 1) / kBlockRows;
  const auto memory = [](int64_t count) {
    return std::unique_ptr<uint32_t[]>(new uint32_t[static_cast<size_t>(count)]);
  };
  const auto panels = memory(pairs * padded(columns));
  const auto packed = memory(left.turned      ? pairs * padded(rows)
                             : depth % 2 == 0 ? 0
                                              : pairs * rows);
  LeftPairs x{};
  int64_t there = -1;  // the batch whose factors are packed
  for (int64_t item = begin; item < end; ++item) {
    const int64_t batch = item / blocks, from = item % blocks * kBlockRows;
    if (batch != there) {
      pack_right(right, batch, panels.get());
      x = pack_left(left, batch, packed.get());
      there = batch;
    }
    bfloat16* to = y.data<bfloat16>() + batch * rows * columns;
    const int64_t until = std::min(from + kBlockRows, rows);
    for (int64_t column = 0; column < columns; column += kTileColumns) {
      const int64_t width = std::min(kTileColumns, padded(columns - column));
      const bool both = width > kLanes;
      const Lanes lanes = lanes_of(columns - column - (width - kLanes));
      for (int64_t row = from; row < until; row += kTileRows) {
        const int64_t count = std::min<int64_t>(kTileRows, until - row);
        const LeftPairs of_tile{x.x + row * x.row, x.row, x.step};
        (both ? tile_of<2>(count) : tile_of<1>(count))(of_tile, panels.get() + column * pairs,
                                                       pairs, to + row * columns + column, columns,
                                                       lanes);
      }
    }
  }
}

}  // namespace

void avx512_pairs_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  const int64_t items = y.size(0) * ((left.rows() + kBlockRows - 1) / kBlockRows);
  parallel_chunks(items, int64_t{1},
                  [&](int64_t begin, int64_t end) { product_items(left, right, y, begin, end); });
}

}  // namespace mixpl::cpu::batched_matmul
#endif
