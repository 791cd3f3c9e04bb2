#include "detect/top_items_cuda.h"

namespace mixpl::cuda::top_items {
namespace {

MIXPL_KERNEL __launch_bounds__(kThreads)
    choose_kernel(State* state, const int32_t* counts, int shift) {
  constexpr int kPer = kBins / kThreads;
  State s = state[blockIdx.x];
  if (s.done) return;
  const int32_t* own = counts + int64_t{blockIdx.x} * kBins + threadIdx.x * kPer;
  int32_t sum = 0, total;
  for (int k = 0; k < kPer; ++k) sum += own[k];
  int64_t before = block_scan_exclusive(sum, &total);
  if (!(before < s.left && s.left <= before + sum)) return;  // one thread goes on
  int k = 0;
  for (; before + own[k] < s.left; ++k) before += own[k];
  s.prefix |= static_cast<uint64_t>(threadIdx.x * kPer + k) << shift;
  s.left -= before;
  if (own[k] == s.left) {  // everything that begins so
    s.bound = s.prefix + (uint64_t{1} << shift);
    if (s.bound == 0) s.bound = kNoItem;
    // Some of them were not counted, perhaps.
    const uint64_t end = uint64_t{s.last} << 32 | kAllKeys.last;
    if (s.bound > end) s.bound = end;
    s.done = 1;
  }
  state[blockIdx.x] = s;
}

}  // namespace

void choose(int64_t segments, State* state, const int32_t* counts, int shift) {
  launch(choose_kernel, dim3(static_cast<unsigned>(segments)), dim3(kThreads), 0, state, counts,
         shift);
}

}  // namespace mixpl::cuda::top_items
