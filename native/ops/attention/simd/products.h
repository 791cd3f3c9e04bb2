// Small matrix products whose sums stay in registers, and the packing of what they multiply.
#pragma once

#include <array>
#include <utility>

#include "ops/attention/simd/vector.h"

namespace mixpl::cpu::attention {
inline namespace MIXPL_SIMD_NAME {

/// Rows of a tile of one or two vectors of columns: what 32 or 16 registers hold.
constexpr int kTileRows = kLanes == 16 ? 14 : 6;
/// Columns of a tile.
constexpr int64_t kTileColumns = 2 * kLanes;

constexpr int64_t up_to(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
/// Columns that are stored of n: whole vectors.
constexpr int64_t padded(int64_t n) { return up_to(n, kLanes); }
/// Numbers from one row of n scores to the next: an odd number of vectors, so that the rows a tile
/// reads at once do not share a set of the cache.
constexpr int64_t score_pitch(int64_t n) { return ((n + kLanes - 1) / kLanes | 1) * kLanes; }

/// y[row, column] (+)= sum over depth of x[row, depth] w[depth, column], in order of depth.
struct Product {
  int64_t rows, columns, depth;  // columns: whole vectors
  const float* x;
  int64_t x_row, x_step;  // numbers from a row, a step of depth, to the next
  const float* w;
  int64_t w_panel, w_step;  // w_step 0: that of panels, as wide as their columns
  float* y;
  int64_t y_row;
  bool add;
};

// Without the pragmas the compiler keeps the sums in memory.
template <int M, int V>
MIXPL_SIMD void tile(const Product& p, const float* x, const float* w, int64_t w_step, float* y) {
  Vector sums[M][V];
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[m][v] = p.add ? load(y + m * p.y_row + v * kLanes) : splat(0);

  // Two base pointers and three distances address 14 rows without a pointer for each.
  const int64_t one = p.x_row, three = 3 * one, five = 5 * one, x_step = p.x_step;
  const float* x7 = x + 7 * one;
  for (int64_t i = p.depth; i > 0; --i) {
    Vector columns[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) columns[v] = load(w + v * kLanes);
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const int j = m % 7;
      const int64_t away = j == 3 ? three : j == 5 ? five : j == 6 ? 2 * three : j * one;
      const Vector row = splat((m < 7 ? x : x7)[away]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sums[m][v] = fmadd(row, columns[v], sums[m][v]);
    }
    x += x_step, x7 += x_step, w += w_step;
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(y + m * p.y_row + v * kLanes, sums[m][v]);
}

using TileFunction = void (*)(const Product&, const float*, const float*, int64_t, float*);
template <int V>
inline TileFunction tile_of(int64_t rows) {
  static constexpr auto functions = []<int... M>(std::integer_sequence<int, M...>) {
    return std::array{&tile<M + 1, V>...};
  }
  (std::make_integer_sequence<int, kTileRows>{});
  return functions[rows - 1];
}

// Panel by panel of w, which stays in the first-level cache, or row by row of x, whichever is
// walked in order: a panel of scores is short, one of values is as long as there are keys.
inline void multiply(const Product& p) {
  for (int64_t column = 0; column < p.columns; column += kTileColumns) {
    const bool pair = p.columns - column >= kTileColumns;
    const float* w = p.w + column / kTileColumns * p.w_panel;
    const int64_t w_step = p.w_step ? p.w_step : (pair ? 2 : 1) * kLanes;
    for (int64_t row = 0; row < p.rows; row += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, p.rows - row);
      const TileFunction f = pair ? tile_of<2>(rows) : tile_of<1>(rows);
      f(p, p.x + row * p.x_row, w, w_step, p.y + row * p.y_row + column);
    }
  }
}

/// `to`[row][pitch] = scale * from[row][columns], with zeros behind.
template <typename T>
MIXPL_SIMD void pack_rows(const T* from, int64_t from_pitch, int64_t rows, int64_t columns,
                          float scale, float* to) {
  const int64_t pitch = padded(columns);
  const Vector factor = splat(scale);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t c = 0; c < pitch; c += kLanes)
      store(to + row * pitch + c,
            mul(factor, load(from + row * from_pitch + c, lanes_of(columns - c))));
}

/// `to` as panels [depth][kTileColumns], of the last rows [depth][kLanes] if these are enough, with
/// column r of a panel from row r of `from`, zeros behind the last.
template <typename T>
MIXPL_SIMD void pack_transposed(const T* from, int64_t from_pitch, int64_t rows, int64_t depth,
                                float* to) {
  for (int64_t first = 0; first < rows; first += kTileColumns) {
    const int64_t width = std::min(kTileColumns, padded(rows - first));
    for (int64_t column = 0; column < width; column += kLanes)
      for (int64_t d = 0; d < depth; d += kLanes) {
        const Lanes lanes = lanes_of(depth - d);
        Vector square[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          const int64_t row = first + column + i;
          square[i] = row < rows ? load(from + row * from_pitch + d, lanes) : splat(0);
        }
        transpose(square);
        for (int64_t i = 0; i < std::min(kLanes, depth - d); ++i)
          store(to + first * depth + (d + i) * width + column, square[i]);
      }
  }
}

/// to[row][columns] = factor * from[row][padded(columns)].
template <typename T>
MIXPL_SIMD void unpack_row(const float* from, float factor, int64_t columns, T* to) {
  for (int64_t c = 0; c < columns; c += kLanes)
    store(to + c, lanes_of(columns - c), mul(splat(factor), load(from + c)));
}

/// Working memory of a thread, as it comes.
class Floats {
 public:
  explicit Floats(int64_t count) : values_(new float[static_cast<size_t>(count)]) {}
  ~Floats() { delete[] values_; }
  Floats(const Floats&) = delete;
  Floats& operator=(const Floats&) = delete;
  operator float*() const { return values_; }

 private:
  float* values_;
};

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::attention
