// Kernels bound by memory: loops over packs of neighbouring values, 16 bytes where they fit, and the
// index arithmetic that comes with NHWC.
#pragma once

#include <cstdint>
#include <limits>

#include "core/cuda/kernel.h"
#include "core/error.h"

namespace mixpl::cuda {

/// n as a 32-bit index, in which a GPU divides several times faster than in 64 bits.
/// @throws RangeError when it is not below 2^31: at 16 bytes a pack, 32 GiB in one tensor
inline uint32_t index_of(int64_t n) {
  if (n > std::numeric_limits<int32_t>::max())
    throw RangeError(str("a kernel indexes fewer than 2^31 packs, got ", n));
  return static_cast<uint32_t>(n);
}

/// Division by a number known at launch, as a multiplication and a shift, of numbers below 2^31.
/// @source Granlund and Montgomery 1994, figure 4.1, with N = 32
class Divider {
 public:
  explicit Divider(int64_t divisor) : divisor_(index_of(divisor)) {
    while ((uint64_t{1} << shift_) < divisor_) ++shift_;
    if (divisor_ > 0)
      factor_ = static_cast<uint32_t>(
          (uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor_) / divisor_ + 1);
  }
  MIXPL_HD uint32_t quotient(uint32_t n) const {
    return (static_cast<uint32_t>((uint64_t{n} * factor_) >> 32) + n) >> shift_;
  }
  /// Returns the quotient and leaves the remainder in n: peels the innermost axis off an index.
  MIXPL_HD uint32_t split(uint32_t& n) const {
    const uint32_t q = quotient(n);
    n -= q * divisor_;
    return q;
  }
  MIXPL_HD uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_, factor_ = 1, shift_ = 0;
};

/// Width of the packs of a loop as a type, so that a generic lambda can take it.
template <int N>
using PackOf = std::integral_constant<int, N>;

/// f(PackOf<N>()) with as many T as 16 bytes hold where that divides the channels, else 1.
template <typename T, typename F>
void with_packs(int64_t channels, F&& f) {
  if (channels % kVecWidth<T> == 0)
    f(PackOf<kVecWidth<T>>());
  else
    f(PackOf<1>());
}

template <int N, typename F>
MIXPL_KERNEL __launch_bounds__(256) for_each_pack_kernel(uint32_t packs, F f) {
  for (int64_t i = thread_index(); i < packs; i += thread_count())
    f.template pack<N>(static_cast<uint32_t>(i));
}

/// f.pack<N>(i) for i in [0, packs). F is plain data with
/// `template <int N> MIXPL_DEVICE void pack(uint32_t i) const`.
template <int N, typename F>
void for_each_pack(int64_t packs, F f,
                   std::source_location where = std::source_location::current()) {
  launch(for_each_pack_kernel<N, F>, Grid(blocks_for(packs), where), 256, 0, index_of(packs), f);
}

template <int N, typename F>
MIXPL_KERNEL __launch_bounds__(256) for_all_values_kernel(int64_t n, F f) {
  const int64_t packs = n / N;
  for (int64_t i = thread_index(); i < packs; i += thread_count()) f.template values<N>(i * N);
  for (int64_t i = packs * N + thread_index(); i < n; i += thread_count()) f.template values<1>(i);
}

/// f.values<N>(i) for the values [i, i + N) of whole tensors, which start aligned; one by one at the
/// end. F is plain data with `template <int N> MIXPL_DEVICE void values(int64_t i) const`.
template <int N, typename F>
void for_all_values(int64_t n, F f, std::source_location where = std::source_location::current()) {
  launch(for_all_values_kernel<N, F>, Grid(blocks_for((n + N - 1) / N), where), 256, 0, n, f);
}

}  // namespace mixpl::cuda
