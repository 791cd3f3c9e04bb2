// N values in one memory access.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/cuda/intrinsics.h"

namespace mixpl::cuda {

/// At most 16 bytes, aligned to its size.
template <typename T, int N>
struct alignas(sizeof(T) * N) Vec {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "a Vec is one access of 2 to 16 bytes");
  T values[N];
  MIXPL_HD T& operator[](int i) { return values[i]; }
  MIXPL_HD const T& operator[](int i) const { return values[i]; }
};

/// The most T that fit in 16 bytes.
template <typename T>
constexpr int kVecWidth = 16 / sizeof(T);

/// Whether p can be read and written in Vec<T, N>: for the host to choose the kernel.
template <typename T, int N>
inline bool is_aligned_for(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % (sizeof(T) * N) == 0;
}

/// `p` must be aligned to the Vec.
template <typename T, int N>
MIXPL_DEVICE Vec<T, N> load_vec(const T* p) {
  check_alignment(p, sizeof(T) * N);
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <typename T, int N>
MIXPL_DEVICE void store_vec(T* p, const Vec<T, N>& v) {
  check_alignment(p, sizeof(T) * N);
  if constexpr (sizeof(T) * N == 16) {
    uint32_t words[4];
    memcpy(words, v.values, 16);
    store_words(p, words);
  } else {
    *reinterpret_cast<Vec<T, N>*>(p) = v;
  }
}

}  // namespace mixpl::cuda
