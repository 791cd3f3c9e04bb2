#include <algorithm>

#include "core/cuda/kernel.h"
#include "ops/conv2d/conv2d.h"

namespace mixpl::cuda {
namespace {

// Rows are summed in chunks, the chunks in order: the same bits on every run.
constexpr int64_t kLeastRows = 64, kMostChunks = 512;
constexpr int kThreads = 256;
constexpr int kShare = 8, kSumColumns = kThreads / kShare;  // threads to a column of partial sums

template <typename T>
struct Columns {
  const T* y;  // null: no mask
  const T* dy;
  T* masked;
  float* partial;  // [chunks, k], null: no sums
  int64_t rows, k, rows_a_chunk;
};

// A block takes one chunk of rows and `across` vectors of columns; its other threads are rows.
// Four blocks: left alone, ptxas spills for sm_80 to have eight.
template <typename T, int kWidth>
MIXPL_KERNEL __launch_bounds__(kThreads, 4) mask_and_sum_kernel(Columns<T> v, int across) {
  MIXPL_SHARED(float, sums, kThreads* kWidth);
  const int vector = threadIdx.x % across, first = threadIdx.x / across, down = kThreads / across;
  const int64_t column = (int64_t{blockIdx.x} * across + vector) * kWidth;
  const int64_t begin = blockIdx.y * v.rows_a_chunk;
  const int64_t end = begin + v.rows_a_chunk < v.rows ? begin + v.rows_a_chunk : v.rows;
  float sum[kWidth] = {};
  if (column < v.k)
    for (int64_t row = begin + first; row < end; row += down) {
      const int64_t at = row * v.k + column;
      Vec<T, kWidth> d = load_vec<T, kWidth>(v.dy + at);
      if (v.y) {
        const Vec<T, kWidth> y = load_vec<T, kWidth>(v.y + at);
#pragma unroll
        for (int e = 0; e < kWidth; ++e)
          if (!(float(y[e]) > 0)) d[e] = T(0.0f);
        store_vec(v.masked + at, d);
      }
#pragma unroll
      for (int e = 0; e < kWidth; ++e) sum[e] += float(d[e]);
    }
  if (!v.partial) return;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) sums[threadIdx.x * kWidth + e] = sum[e];
  sync_block();
  for (int i = threadIdx.x; i < across * kWidth; i += kThreads) {
    float total = 0;
    for (int row = 0; row < down; ++row) total += sums[row * across * kWidth + i];
    const int64_t out = int64_t{blockIdx.x} * across * kWidth + i;
    if (out < v.k) v.partial[blockIdx.y * v.k + out] = total;
  }
}

// kShare threads share the chunks of one column.
MIXPL_KERNEL __launch_bounds__(kThreads)
    sum_chunks_kernel(const float* partial, int64_t chunks, int64_t k, float* out) {
  MIXPL_SHARED(float, sums, kThreads);

  const int column = threadIdx.x % kSumColumns, first = threadIdx.x / kSumColumns;
  const int64_t at = int64_t{blockIdx.x} * kSumColumns + column;
  float sum = 0;
  if (at < k)
    for (int64_t chunk = first; chunk < chunks; chunk += kShare) sum += partial[chunk * k + at];
  sums[threadIdx.x] = sum;
  sync_block();
  if (first != 0 || at >= k) return;
  for (int i = 1; i < kShare; ++i) sum += sums[i * kSumColumns + column];
  out[at] = sum;
}

template <typename T, int kWidth>
void run(const Columns<T>& v, int64_t chunks) {
  // As many vectors as a row has, a warp's worth at most: the other lanes take other rows.
  int across = 1;
  while (across < 32 && across * kWidth < v.k) across *= 2;
  const int64_t right = (v.k + across * kWidth - 1) / (across * kWidth);
  launch(mask_and_sum_kernel<T, kWidth>,
         dim3(static_cast<unsigned>(right), static_cast<unsigned>(chunks)), kThreads, 0, v, across);
}

}  // namespace

void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias) {
  if (dbias.defined() && dy.numel() == 0) return memset_device(dbias.raw(), 0, dbias.nbytes());
  if (dy.numel() == 0 || (!y.defined() && !dbias.defined())) return;
  const int64_t k = dy.size(-1), rows = dy.numel() / k;
  const int64_t rows_a_chunk = std::max(kLeastRows, (rows + kMostChunks - 1) / kMostChunks);
  const int64_t chunks = (rows + rows_a_chunk - 1) / rows_a_chunk;
  Tensor partial;
  if (dbias.defined()) partial = Tensor::empty({chunks, k}, DType::f32, dy.device());
  float* sums = dbias.defined() ? partial.data<float>() : nullptr;
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    constexpr int kWidth = kVecWidth<T>;
    const Columns<T> v{y.defined() ? y.data<T>() : nullptr,
                       dy.data<T>(),
                       masked.data<T>(),
                       sums,
                       rows,
                       k,
                       rows_a_chunk};
    const bool aligned = k % kWidth == 0 && is_aligned_for<T, kWidth>(v.dy) &&
                         is_aligned_for<T, kWidth>(v.y) && is_aligned_for<T, kWidth>(v.masked);
    aligned ? run<T, kWidth>(v, chunks) : run<T, 1>(v, chunks);
  });
  if (dbias.defined())
    launch(sum_chunks_kernel, (k + kSumColumns - 1) / kSumColumns, kThreads, 0,
           static_cast<const float*>(sums), chunks, k, dbias.data<float>());
}

}  // namespace mixpl::cuda
