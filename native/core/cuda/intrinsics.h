// What a kernel asks of the hardware beyond C++. Everything here has a second implementation in
// emulation/intrinsics.h, with the same meaning and checks; kernels use nothing else.
#pragma once

#include <cstdint>

#include "core/cuda/keywords.h"

#if defined(MIXPL_CUDA_EMULATED)
#include "core/cuda/emulation/intrinsics.h"
#else

/// A static array of `count` T in shared memory; T must be trivially constructible.
#define MIXPL_SHARED(T, name, count) __shared__ T name[count]
/// The dynamic shared memory of the launch as T*, aligned to 1 KiB.
#define MIXPL_DYNAMIC_SHARED(T, name)                                            \
  extern __shared__ __align__(1024) unsigned char mixpl_dynamic_shared_memory[]; \
  T* const name = reinterpret_cast<T*>(mixpl_dynamic_shared_memory)

namespace mixpl::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

MIXPL_DEVICE int linear_thread() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
/// Lane within the warp, warp within the block.
MIXPL_DEVICE int lane() { return linear_thread() & 31; }
MIXPL_DEVICE int warp() { return linear_thread() >> 5; }
MIXPL_DEVICE int threads_of_block() {
  return static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
}

/// Every thread of the block must come to the same call; none may have left the kernel.
MIXPL_DEVICE void sync_block() { __syncthreads(); }
MIXPL_DEVICE void sync_warp(uint32_t mask = kAllLanes) { __syncwarp(mask); }

/// Value of another lane. All lanes of the warp must call; the one read from must exist. T has 4 or
/// 8 bytes.
template <typename T>
MIXPL_DEVICE T shfl(T v, int from) {
  return __shfl_sync(kAllLanes, v, from);
}
template <typename T>
MIXPL_DEVICE T shfl_xor(T v, int mask) {
  return __shfl_xor_sync(kAllLanes, v, mask);
}
/// Lanes beyond the warp's end keep their own value.
template <typename T>
MIXPL_DEVICE T shfl_down(T v, int delta) {
  return __shfl_down_sync(kAllLanes, v, delta);
}
template <typename T>
MIXPL_DEVICE T shfl_up(T v, int delta) {
  return __shfl_up_sync(kAllLanes, v, delta);
}
MIXPL_DEVICE uint32_t ballot(bool pred) { return __ballot_sync(kAllLanes, pred); }
MIXPL_DEVICE bool any(bool pred) { return __any_sync(kAllLanes, pred); }
MIXPL_DEVICE bool all(bool pred) { return __all_sync(kAllLanes, pred); }

/// The value before. Floating-point sums depend on the order: see the contract of each kernel.
template <typename T>
MIXPL_DEVICE T atomic_add(T* p, T v) {
  return atomicAdd(p, v);
}
template <typename T>
MIXPL_DEVICE T atomic_max(T* p, T v) {
  return atomicMax(p, v);
}
template <typename T>
MIXPL_DEVICE T atomic_min(T* p, T v) {
  return atomicMin(p, v);
}
template <typename T>
MIXPL_DEVICE T atomic_or(T* p, T v) {
  return atomicOr(p, v);
}
template <typename T>
MIXPL_DEVICE T atomic_cas(T* p, T expected, T desired) {
  return atomicCAS(p, expected, desired);
}
template <typename T>
MIXPL_DEVICE T atomic_exch(T* p, T v) {
  return atomicExch(p, v);
}
/// Writes before it are seen by all threads of the grid before writes after it.
MIXPL_DEVICE void fence() { __threadfence(); }

MIXPL_DEVICE int popcount(uint32_t x) { return __popc(x); }
/// Place of the lowest set bit, -1 for 0.
MIXPL_DEVICE int lowest_bit(uint32_t x) { return __ffs(static_cast<int>(x)) - 1; }
/// Zeros above the highest set bit, 32 for 0.
MIXPL_DEVICE int leading_zeros(uint32_t x) { return __clz(static_cast<int>(x)); }

/// Reads memory that nobody writes during the kernel.
template <typename T>
MIXPL_DEVICE T load_read_only(const T* p) {
  if constexpr (sizeof(T) == 2) {
    const unsigned short bits = __ldg(reinterpret_cast<const unsigned short*>(p));
    return *reinterpret_cast<const T*>(&bits);
  } else if constexpr (sizeof(T) == 16) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4*>(p));
    return *reinterpret_cast<const T*>(&bits);
  } else {
    return __ldg(p);
  }
}

/// For the emulation: an address that the hardware would refuse.
MIXPL_DEVICE void check_alignment(const void*, size_t) {}
/// 16 bytes in one access: the compiler stores a struct of halves or floats part by part.
MIXPL_DEVICE void store_words(void* to, const uint32_t (&words)[4]) {
  asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words[0]), "r"(words[1]),
               "r"(words[2]), "r"(words[3])
               : "memory");
}

}  // namespace mixpl::cuda

#include "core/cuda/tensor_cores.h"

#endif

#include "core/cuda/warpgroups.h"
