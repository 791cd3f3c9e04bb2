// Which of many numbers are the least: a radix search by one block, without moving anything.
#pragma once

#include <bit>
#include <cstdint>

#include "core/cuda/kernel.h"

namespace mixpl::cuda {

constexpr int kSelectThreads = 256;  // of a block that selects: one a digit

/// A key that orders by a number, then by an index. Different indices give different keys.
MIXPL_DEVICE uint64_t key_of(float number, int32_t index) {
  // -0 becomes 0; the bits of negative numbers fall as these rise.
  const uint32_t bits = std::bit_cast<uint32_t>(number + 0.0f);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | static_cast<uint32_t>(index);
}

constexpr uint64_t kNoKey = ~uint64_t{0};  // larger than every key: takes no part

/// The bound that `most` keys do not exceed: the `most`-th least of key(0) … key(count - 1), or any
/// number up to the next one; all keys but kNoKey where there are fewer. Keys are different. The
/// whole block calls it, with kSelectThreads threads, and gets the same.
/// @param most >= 1
template <typename Key>
MIXPL_DEVICE uint64_t least_keys(int64_t count, int64_t most, const Key& key) {
  MIXPL_SHARED(int32_t, having, kSelectThreads);  // keys of a digit, among those still in question
  MIXPL_SHARED(int64_t, found, 2);                // the digit, and how many are wanted of its keys
  const int thread = threadIdx.x;
  uint64_t prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    having[thread] = 0;
    sync_block();
    for (int64_t i = thread; i < count; i += kSelectThreads) {
      const uint64_t k = key(i);
      if (k == kNoKey || (shift < 56 && (k ^ prefix) >> (shift + 8))) continue;
      atomic_add(&having[(k >> shift) & 255], 1);
    }
    sync_block();
    const int32_t own = having[thread];
    int32_t total = 0;
    const int32_t before = block_scan_exclusive(own, &total);
    if (total < most) return kNoKey - 1;  // only at first: later there are enough
    if (before < most && most <= before + own) {
      found[0] = thread;
      found[1] = most - before;
    }
    sync_block();
    prefix |= static_cast<uint64_t>(found[0]) << shift;
    most = found[1];
    const bool whole = having[found[0]] == most;  // then the digits below do not matter
    sync_block();
    if (whole) return prefix | ((uint64_t{1} << shift) - 1);
  }
  return prefix;
}

}  // namespace mixpl::cuda
