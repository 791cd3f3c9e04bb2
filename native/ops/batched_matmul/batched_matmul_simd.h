// Batched products out of the tiles that attention multiplies by (ops/attention/simd/products.h):
// compiled once for each instruction set, by batched_matmul_*_cpu.cpp, which say how wide a
// register is.
#pragma once

#include "core/parallel.h"
#include "ops/attention/simd/products.h"
#include "ops/batched_matmul/batched_matmul_kernels.h"

namespace mixpl::cpu::batched_matmul {
inline namespace MIXPL_SIMD_NAME {

using namespace attention::MIXPL_SIMD_NAME;

/// Rows of a result that a thread works out in one go. Every sum is a matter of its own, so they
/// may be shared in any way.
constexpr int64_t kBlockRows = 8 * kTileRows;

/// `to` as panels [depth][kTileColumns] as pack_transposed makes them, of `from` [depth, columns].
template <typename T>
MIXPL_SIMD void pack_panels(const T* from, int64_t depth, int64_t columns, float* to) {
  for (int64_t first = 0; first < columns; first += kTileColumns) {
    const int64_t width = std::min(kTileColumns, padded(columns - first));
    float* panel = to + first * depth;
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t c = 0; c < width; c += kLanes)
        store(panel + d * width + c,
              load(from + d * columns + first + c, lanes_of(columns - first - c)));
  }
}

/// The left factor of one batch: x[row, step] for the tiles. f32 is read where it lies.
struct LeftRows {
  const float* x;
  int64_t row, step;
};
template <typename T>
MIXPL_SIMD LeftRows left_rows(const BatchedFactor& f, int64_t batch, float* packed) {
  const int64_t rows = f.matrices.size(1), columns = f.matrices.size(2);
  const T* from = f.matrices.data<T>() + batch * rows * columns;
  const float* x;
  int64_t pitch = columns;
  if constexpr (std::is_same_v<T, float>) {
    x = from;
  } else {
    pitch = padded(columns);
    pack_rows(from, columns, rows, columns, 1, packed);
    x = packed;
  }
  return f.turned ? LeftRows{x, 1, pitch} : LeftRows{x, pitch, 1};
}

/// Items [begin, end): blocks of rows, batch after batch.
template <typename T>
MIXPL_SIMD void product_items(const BatchedFactor& left, const BatchedFactor& right, Tensor& y,
                              int64_t begin, int64_t end) {
  const int64_t rows = left.rows(), depth = left.columns(), columns = right.columns();
  const int64_t width = padded(columns), blocks = (rows + kBlockRows - 1) / kBlockRows;
  constexpr bool kFloat = std::is_same_v<T, float>;
  const bool in_place = kFloat && width == columns;
  const Floats panels(depth * width), sums(in_place ? 0 : kBlockRows * width);
  const Floats packed(kFloat ? 0 : left.matrices.size(1) * padded(left.matrices.size(2)));
  LeftRows x{};
  int64_t there = -1;  // the batch whose factors are packed
  for (int64_t item = begin; item < end; ++item) {
    const int64_t batch = item / blocks, first = item % blocks * kBlockRows;
    if (batch != there) {
      const T* from = right.matrices.data<T>() + batch * depth * columns;
      if (right.turned)
        pack_transposed(from, depth, columns, depth, panels);
      else
        pack_panels(from, depth, columns, panels);
      x = left_rows<T>(left, batch, packed);
      there = batch;
    }
    const int64_t count = std::min(kBlockRows, rows - first);
    T* to = y.data<T>() + (batch * rows + first) * columns;
    float* out = sums;
    if constexpr (kFloat)
      if (in_place) out = to;
    multiply({.rows = count,
              .columns = width,
              .depth = depth,
              .x = x.x + first * x.row,
              .x_row = x.row,
              .x_step = x.step,
              .w = panels,
              .w_panel = depth * kTileColumns,
              .w_step = 0,
              .y = out,
              .y_row = width,
              .add = false});
    if (in_place) continue;
    for (int64_t i = 0; i < count; ++i) unpack_row(sums + i * width, 1, columns, to + i * columns);
  }
}

template <typename T>
void product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  const int64_t items = y.size(0) * ((left.rows() + kBlockRows - 1) / kBlockRows);
  parallel_chunks(items, int64_t{1}, [&](int64_t begin, int64_t end) {
    product_items<T>(left, right, y, begin, end);
  });
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::batched_matmul
