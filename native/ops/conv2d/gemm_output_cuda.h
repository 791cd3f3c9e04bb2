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

/// relu?(sum + bias + residual), rounded once to T.
template <typename T>
struct Output {
  T* to;
  const float* bias;  // one a column, or null
  const T* residual;  // as `to`, or null
  int64_t pitch;      // elements between rows
  bool relu;
  bool aligned;  // every row of `to` and `residual` starts at, and holds, whole chunks

  MIXPL_DEVICE Output at_column(int column) const {
    Output part = *this;
    part.to += column;
    if (bias) part.bias += column;
    if (residual) part.residual += column;
    return part;
  }

  /// One chunk of a row of `columns` elements.
  MIXPL_DEVICE void store(int64_t row, int column, int columns, float (&sums)[kChunk<T>]) const {
    const int64_t first = row * pitch + column;
    if (bias) {
#pragma unroll
      for (int e = 0; e < kChunk<T>; ++e)
        if (column + e < columns) sums[e] += load_read_only(bias + column + e);
    }
    if (aligned) {
      Vec<T, kChunk<T>> values{};
      if (residual) values = load_vec<T, kChunk<T>>(residual + first);
#pragma unroll
      for (int e = 0; e < kChunk<T>; ++e)
        values[e] = finish(sums[e], residual ? float(values[e]) : 0.0f);
      store_vec(to + first, values);
    } else {
#pragma unroll
      for (int e = 0; e < kChunk<T>; ++e)
        if (column + e < columns)
          to[first + e] = finish(sums[e], residual ? float(residual[first + e]) : 0.0f);
    }
  }

 private:
  MIXPL_DEVICE T finish(float sum, float add) const {
    sum += add;
    return T(relu && sum < 0 ? 0.0f : sum);  // NaN stays NaN
  }
};

}  // namespace mixpl::cuda
