// core/cuda/warpgroups.h on the host. A warp multiplies its 16 rows when it waits; all of its lanes
// must have issued the same products.
#pragma once

namespace mixpl::cuda {

inline void fence_async_proxy() { emulation::fence_copies(); }
inline void wgmma_begin() {}
inline void wgmma_commit() { emulation::commit_products(); }
template <int N>
void wgmma_wait(Where where = Where::current()) {
  emulation::wait_for_products(N, where);
}
template <int kSums>
void wgmma_end(float (&)[kSums]) {}
template <bool kA, bool kB, int kSums>
void wgmma_bf16(float (&d)[kSums], uint64_t a, uint64_t b, bool add) {
  static_assert(kSums == 64 || kSums == 128);
  emulation::start_product({d, kSums, a, b, kA, kB, add});
}

}  // namespace mixpl::cuda
