// Where the sums of a matrix product go.
#pragma once

#include "core/tensor.h"
#include "ops/conv2d/gemm_tile_cuda.h"

namespace mixpl::cuda {

/// The largest run of 16 bytes, 4 bytes or one element that every `channels` neighbours in `t`
/// split into, counted from its start.
inline int granule_of(const Tensor& t, int64_t channels) {
  const int64_t size = size_of(t.dtype());
  const auto divides = [&](int64_t bytes) {
    return channels * size % bytes == 0 && reinterpret_cast<uintptr_t>(t.raw()) % bytes == 0;
  };
  return divides(kChunkBytes) ? kChunkBytes : divides(4) ? 4 : static_cast<int>(size);
}

/// relu?(sum + bias + residual), rounded once to T; or, of a gradient, sum (+ what `to` holds), 0
/// where a mask is not above 0.
template <typename T, bool kGradient = false>
struct Output {
  T* to = nullptr;
  const float* bias = nullptr;  // one a column, or null
  const T* residual = nullptr;  // as `to`, or null; of a gradient, what `to` holds
  const T* mask = nullptr;      // of a gradient: as `to`, or null
  int64_t pitch = 0;            // elements between rows
  bool relu = false;
  bool aligned =
      false;  // every row of `to`, `residual` and `mask` starts at, and holds, whole chunks

  MIXPL_DEVICE Output at_column(int column) const {
    Output part = *this;
    part.to += column;
    if (!kGradient && bias) part.bias += column;
    if (residual) part.residual += column;
    if (kGradient && mask) part.mask += column;
    return part;
  }

  /// A chunk of each of the rows, of `columns` elements; nothing of a row below zero. Only where
  /// rows are aligned.
  template <int kRows>
  MIXPL_DEVICE void store_chunks(const int (&rows)[kRows], int column, int columns,
                                 float (&sums)[kRows][kChunk<T>]) const {
    if (column >= columns) return;
    if (!kGradient && bias) {
#pragma unroll
      for (int e = 0; e < kChunk<T>; e += 4) {
        const Vec<float, 4> add = biases(column + e, columns);
#pragma unroll
        for (int i = 0; i < kRows; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[i][e + j] += add[j];
      }
    }
    if (residual) {
      Vec<T, kChunk<T>> add[kRows]{};  // all on their way before one is needed
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (rows[i] >= 0)
          add[i] = load_vec<T, kChunk<T>>(residual + int64_t{rows[i]} * pitch + column);
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int e = 0; e < kChunk<T>; ++e) sums[i][e] += float(add[i][e]);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      Vec<T, kChunk<T>> values;
#pragma unroll
      for (int e = 0; e < kChunk<T>; ++e) values[e] = finish(sums[i][e]);
      if (rows[i] < 0) continue;
      const int64_t at = int64_t{rows[i]} * pitch + column;
      if (kGradient && mask) {
        const Vec<T, kChunk<T>> open = load_vec<T, kChunk<T>>(mask + at);
#pragma unroll
        for (int e = 0; e < kChunk<T>; ++e)
          if (!(float(open[e]) > 0)) values[e] = T(0.0f);
      }
      store_vec(to + at, values);
    }
  }

  MIXPL_DEVICE void store_element(int row, int column, float sum) const {
    const int64_t at = int64_t{row} * pitch + column;
    if (!kGradient && bias) sum += load_read_only(bias + column);
    if (residual) sum += float(residual[at]);
    if (kGradient && mask && !(float(mask[at]) > 0)) sum = 0;
    to[at] = finish(sum);
  }
  /// A chunk of any row.
  MIXPL_DEVICE void store(int row, int column, int columns, float (&sums)[1][kChunk<T>]) const {
    const int rows[1] = {row};
    if (aligned) return store_chunks(rows, column, columns, sums);
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e)
      if (column + e < columns) store_element(row, column + e, sums[0][e]);
  }

 private:
  MIXPL_DEVICE Vec<float, 4> biases(int column, int columns) const {
    const float* from = bias + column;
    if (column + 4 <= columns && reinterpret_cast<uintptr_t>(from) % 16 == 0)
      return load_vec<float, 4>(from);
    Vec<float, 4> some{};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (column + i < columns) some[i] = load_read_only(from + i);
    return some;
  }
  MIXPL_DEVICE T finish(float sum) const {
    return T(!kGradient && relu && sum < 0 ? 0.0f : sum);  // NaN stays NaN
  }
};

}  // namespace mixpl::cuda
