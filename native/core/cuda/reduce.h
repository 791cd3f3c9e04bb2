// Sums, maxima and scans over warps and blocks, and sums over a whole grid that have the same bits
// on every run: fixed chunks, double partial sums, added in order.
#pragma once

#include <cstdint>

#include "core/cuda/intrinsics.h"
#include "core/cuda/launch.h"
#include "core/tensor.h"

namespace mixpl::cuda {

struct Add {
  template <typename T>
  MIXPL_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
// A NaN stays: the comparison that fails keeps it.
struct Max {
  template <typename T>
  MIXPL_DEVICE T operator()(T a, T b) const {
    return a != a ? a : (a > b ? a : b);
  }
};
struct Min {
  template <typename T>
  MIXPL_DEVICE T operator()(T a, T b) const {
    return a != a ? a : (a < b ? a : b);
  }
};

/// Over all 32 lanes, the same bits in each.
template <typename T, typename Op>
MIXPL_DEVICE T warp_reduce(T v, Op op) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) v = op(v, shfl_xor(v, mask));
  return v;
}
template <typename T>
MIXPL_DEVICE T warp_sum(T v) {
  return warp_reduce(v, Add());
}
template <typename T>
MIXPL_DEVICE T warp_max(T v) {
  return warp_reduce(v, Max());
}
template <typename T>
MIXPL_DEVICE T warp_min(T v) {
  return warp_reduce(v, Min());
}

/// Over the block, in every thread. All threads must call, and blocks must be whole warps.
template <typename T, typename Op>
MIXPL_DEVICE T block_reduce(T v, Op op) {
  MIXPL_SHARED(T, partial, 32);
  v = warp_reduce(v, op);
  sync_block();  // the call before may still be reading
  if (lane() == 0) partial[warp()] = v;
  sync_block();
  const int warps = threads_of_block() / 32;
  T result = partial[0];
  for (int w = 1; w < warps; ++w) result = op(result, partial[w]);
  return result;
}
template <typename T>
MIXPL_DEVICE T block_sum(T v) {
  return block_reduce(v, Add());
}
template <typename T>
MIXPL_DEVICE T block_max(T v) {
  return block_reduce(v, Max());
}
template <typename T>
MIXPL_DEVICE T block_min(T v) {
  return block_reduce(v, Min());
}

/// Sum of the values of the threads before this one; `total` gets the sum of all. As block_sum.
MIXPL_DEVICE int32_t block_scan_exclusive(int32_t v, int32_t* total) {
  MIXPL_SHARED(int32_t, sums, 32);
  int32_t inclusive = v;
#pragma unroll
  for (int delta = 1; delta < 32; delta <<= 1) {
    const int32_t below = shfl_up(inclusive, delta);
    if (lane() >= delta) inclusive += below;
  }
  sync_block();
  if (lane() == 31) sums[warp()] = inclusive;
  sync_block();
  const int warps = threads_of_block() / 32;
  int32_t before = 0, all = 0;
  for (int w = 0; w < warps; ++w) {
    if (w < warp()) before += sums[w];
    all += sums[w];
  }
  *total = all;
  return before + inclusive - v;
}

/// Working memory of a kernel, from the device's pool.
inline Tensor scratch(int64_t bytes) {
  return Tensor::empty({bytes}, DType::u8, Device::cuda(current_device()));
}

constexpr int kReduceThreads = 256;
constexpr int64_t kReduceChunk = 4096;  // items that one block adds

template <typename F>
MIXPL_KERNEL __launch_bounds__(kReduceThreads, 2)
    reduce_chunks_kernel(int64_t n, int64_t chunks, F f, double* partial) {
  // Blocks walk over rows and chunks: grid.x is limited, their product is not.
  const int64_t row = int64_t{blockIdx.x} / chunks, chunk = int64_t{blockIdx.x} % chunks;
  const int64_t begin = chunk * kReduceChunk;
  const int64_t end = begin + kReduceChunk < n ? begin + kReduceChunk : n;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kReduceThreads) sum += double(f(row, i));
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename Unused = void>
MIXPL_KERNEL __launch_bounds__(kReduceThreads)
    reduce_partials_kernel(int64_t chunks, const double* partial, float* out, float scale) {
  const double* row = partial + int64_t{blockIdx.x} * chunks;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += kReduceThreads) sum += row[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<float>(sum * scale);
}

/// out[row] = scale * sum over i in [0, n) of f(row, i), for row in [0, rows). F is a plain struct
/// with `MIXPL_DEVICE float operator()(int64_t row, int64_t i) const`. The sum of nothing is 0.
template <typename F>
void reduce_sum_rows(int64_t rows, int64_t n, F f, float* out, float scale = 1,
                     std::source_location where = std::source_location::current()) {
  if (rows == 0) return;
  const int64_t chunks = (n + kReduceChunk - 1) / kReduceChunk;
  const Tensor partial = scratch(rows * chunks * static_cast<int64_t>(sizeof(double)));
  auto* sums = reinterpret_cast<double*>(partial.raw());
  launch(reduce_chunks_kernel<F>, Grid(rows * chunks, where), kReduceThreads, 0, n, chunks, f,
         sums);
  launch(reduce_partials_kernel<>, Grid(rows, where), kReduceThreads, 0, chunks, sums, out, scale);
}

template <typename F>
struct SingleRow {
  F f;
  MIXPL_DEVICE float operator()(int64_t, int64_t i) const { return f(i); }
};

/// out[0] = scale * sum over i in [0, n) of f(i), on the device.
template <typename F>
void reduce_sum(int64_t n, F f, float* out, float scale = 1,
                std::source_location where = std::source_location::current()) {
  reduce_sum_rows(1, n, SingleRow<F>{f}, out, scale, where);
}

}  // namespace mixpl::cuda
