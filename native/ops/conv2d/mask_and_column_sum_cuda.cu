#include <algorithm>

#include "core/cuda/kernel.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/level_starts_cuda.h"

namespace mixpl::cuda {
namespace {

// Rows are summed in chunks, the chunks in order: the same bits on every run. Without sums they may
// be more.
constexpr int64_t kMostSums = 512, kMostChunks = 1 << 15;
constexpr int kThreads = 256;
constexpr int kBatch = 2;  // rows that a thread has on their way, and the fewest that it takes
constexpr int kShare = 8, kSumColumns = kThreads / kShare;  // threads to a column of partial sums

template <typename T>
struct Rows {
  const T* y;  // null: no mask
  const T* dy;
  T* masked;
  int64_t count;
};

template <typename T>
struct Columns {
  Rows<T> levels[kMostConvLevels];
  LevelStarts starts;  // in chunks
  float* partial;      // [chunks, k], null: no sums
  int64_t k, rows_a_chunk;
};

// A block takes one chunk of rows and `across` vectors of columns; its other threads are rows.
// Four blocks: left alone, ptxas spills for sm_80 to have eight.
template <typename T, int kWidth>
MIXPL_KERNEL __launch_bounds__(kThreads, 4) mask_and_sum_kernel(Columns<T> v, int across) {
  MIXPL_SHARED(float, sums, kThreads* kWidth);
  const int vector = threadIdx.x % across, first = threadIdx.x / across, down = kThreads / across;
  const int64_t column = (int64_t{blockIdx.x} * across + vector) * kWidth;
  const int level = v.starts.find(blockIdx.y);
  const Rows<T> rows = v.levels[level];
  const int64_t begin = (int64_t{blockIdx.y} - v.starts.first[level]) * v.rows_a_chunk;
  const int64_t end = begin + v.rows_a_chunk < rows.count ? begin + v.rows_a_chunk : rows.count;
  float sum[kWidth] = {};
  if (column < v.k)
    for (int64_t row = begin + first; row < end; row += kBatch * down) {
      Vec<T, kWidth> d[kBatch] = {}, y[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int64_t at = (row + b * down) * v.k + column;
        if (row + b * down >= end) continue;
        d[b] = load_vec<T, kWidth>(rows.dy + at);
        if (rows.y) y[b] = load_vec<T, kWidth>(rows.y + at);
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (rows.y && row + b * down < end) {
#pragma unroll
          for (int e = 0; e < kWidth; ++e)
            if (!(float(y[b][e]) > 0)) d[b][e] = T(0.0f);
          store_vec(rows.masked + (row + b * down) * v.k + column, d[b]);
        }
#pragma unroll
        for (int e = 0; e < kWidth; ++e) sum[e] += float(d[b][e]);
      }
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

// kShare threads share the chunks of one column. Of k columns the first are wanted.
MIXPL_KERNEL __launch_bounds__(kThreads)
    sum_chunks_kernel(const float* partial, int64_t chunks, int64_t k, int64_t wanted, float* out,
                      bool add) {
  MIXPL_SHARED(float, sums, kThreads);

  const int column = threadIdx.x % kSumColumns, first = threadIdx.x / kSumColumns;
  const int64_t at = int64_t{blockIdx.x} * kSumColumns + column;
  float sum = 0;
  if (at < wanted)
    for (int64_t chunk = first; chunk < chunks; chunk += kShare) sum += partial[chunk * k + at];
  sums[threadIdx.x] = sum;
  sync_block();
  if (first != 0 || at >= wanted) return;
  for (int i = 1; i < kShare; ++i) sum += sums[i * kSumColumns + column];
  out[at] = add ? out[at] + sum : sum;
}

template <typename T, int kWidth>
void run(Columns<T>& v, int levels, Tensor& dbias, bool add) {
  // As many vectors as a row has, a warp's worth at most: the other lanes take other rows.
  int across = 1;
  while (across < 32 && across * kWidth < v.k) across *= 2;
  int64_t rows = 0;
  for (int l = 0; l < levels; ++l) rows += v.levels[l].count;
  const int64_t most = dbias.defined() ? kMostSums : kMostChunks;
  v.rows_a_chunk = std::max<int64_t>(kBatch * kThreads / across, (rows + most - 1) / most);
  for (int l = 0; l < levels; ++l)
    v.starts.add((v.levels[l].count + v.rows_a_chunk - 1) / v.rows_a_chunk);
  const int64_t chunks = v.starts.places();
  Tensor partial;
  if (dbias.defined()) {
    partial = Tensor::empty(Shape{chunks, v.k}, DType::f32, dbias.device());
    v.partial = partial.data<float>();
  }
  const int64_t right = (v.k + across * kWidth - 1) / (across * kWidth);
  launch(mask_and_sum_kernel<T, kWidth>,
         dim3(static_cast<unsigned>(right), static_cast<unsigned>(chunks)), kThreads, 0, v, across);
  if (dbias.defined())
    launch(sum_chunks_kernel, (dbias.numel() + kSumColumns - 1) / kSumColumns, kThreads, 0,
           static_cast<const float*>(v.partial), chunks, v.k, dbias.numel(), dbias.data<float>(),
           add);
}

}  // namespace

void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias,
                         bool add) {
  if (dy.numel() == 0) {
    if (dbias.defined() && !add) memset_device(dbias.raw(), 0, dbias.nbytes());
    return;
  }
  if (!y.defined() && !dbias.defined()) return;
  mask_and_column_sum(std::vector{y}, {dy}, {masked}, dbias, add);
}

void mask_and_column_sum(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys,
                         const std::vector<Tensor>& masked, Tensor& dbias, bool add) {
  dispatch_floating(dys[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    constexpr int kWidth = kVecWidth<T>;
    Columns<T> v{};
    v.k = dys[0].size(-1);
    bool aligned = v.k % kWidth == 0;
    for (size_t l = 0; l < dys.size(); ++l) {
      Rows<T>& level = v.levels[l];
      level = {ys[l].defined() ? ys[l].data<T>() : nullptr, dys[l].data<T>(), masked[l].data<T>(),
               dys[l].numel() / v.k};
      aligned = aligned && is_aligned_for<T, kWidth>(level.y) &&
                is_aligned_for<T, kWidth>(level.dy) && is_aligned_for<T, kWidth>(level.masked);
    }
    const int levels = static_cast<int>(dys.size());
    aligned ? run<T, kWidth>(v, levels, dbias, add) : run<T, 1>(v, levels, dbias, add);
  });
}

}  // namespace mixpl::cuda
