#include "core/cuda/kernel.h"
#include "detect/positive_rows.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4096;  // numbers of a block

MIXPL_KERNEL count_chunks(const float* value, int64_t n, int32_t* counts) {
  const int64_t begin = blockIdx.x * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
  int32_t count = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) count += value[i] > 0;
  count = block_sum(count);
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

// Each block knows from the counts where its rows begin; the last one fills what is left.
MIXPL_KERNEL write_rows(const float* value, int64_t n, const int32_t* counts, int64_t most,
                        int32_t* rows) {
  int32_t before = 0;
  for (unsigned chunk = threadIdx.x; chunk < blockIdx.x; chunk += kThreads) before += counts[chunk];
  int64_t to = block_sum(before);
  for (int64_t begin = blockIdx.x * kChunk; begin < (blockIdx.x + 1) * kChunk; begin += kThreads) {
    const int64_t i = begin + threadIdx.x;
    const bool positive = i < n && value[i] > 0;
    int32_t total = 0;
    const int64_t at = to + block_scan_exclusive(positive, &total);
    if (positive && at < most) rows[at] = static_cast<int32_t>(i);
    to += total;
  }
  if (blockIdx.x + 1 == gridDim.x)
    for (int64_t at = to + threadIdx.x; at < most; at += kThreads) rows[at] = -1;
}

}  // namespace

void find_positive_rows(const Tensor& positive, int64_t most, Tensor& rows) {
  const int64_t n = positive.numel(), chunks = (n + kChunk - 1) / kChunk;
  rows = Tensor::empty({most < n ? most : n}, DType::i32, positive.device());
  const Tensor counts = Tensor::empty({chunks}, DType::i32, positive.device());
  launch(count_chunks, chunks, dim3(kThreads), 0, positive.data<float>(), n,
         counts.data<int32_t>());
  launch(write_rows, chunks, dim3(kThreads), 0, positive.data<float>(), n, counts.data<int32_t>(),
         rows.numel(), rows.data<int32_t>());
}

}  // namespace mixpl::cuda
