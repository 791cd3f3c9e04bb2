// core/cuda/intrinsics.h on the host: what a warp does together is a meeting of its fibers.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "core/cuda/emulation/grid.h"

// The key of an array is the address of a variable of its own, one per instantiation as in CUDA.
#define MIXPL_SHARED(T, name, count)                                                \
  static const char mixpl_key_##name = 0;                                           \
  T(&name)                                                                          \
  [count] = *reinterpret_cast<T(*)[count]>(::mixpl::cuda::emulation::shared_memory( \
      &mixpl_key_##name, #name, sizeof(T) * (count), alignof(T)))
#define MIXPL_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::mixpl::cuda::emulation::dynamic_shared_memory())

namespace mixpl::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;
using Where = std::source_location;

inline int linear_thread() { return emulation::linear_thread(); }
inline int lane() { return linear_thread() % emulation::kWarpSize; }
inline int warp() { return linear_thread() / emulation::kWarpSize; }
inline int threads_of_block() { return emulation::threads_of_block(); }

inline void sync_block(Where where = Where::current()) { emulation::wait_for_block(where); }
inline void sync_warp(uint32_t mask = kAllLanes, Where where = Where::current()) {
  emulation::LaneData none = {};
  emulation::meet("sync_warp", mask, where, none, [](emulation::Meeting&) {});
}

namespace emulation {

// Hands over a value and the lane it wants; gets that lane's value, and whether there was one.
struct Shuffle {
  uint64_t value;
  int32_t from;
  int32_t found;
};
inline void exchange_shuffle(Meeting& meeting) {
  Shuffle items[kWarpSize], results[kWarpSize];
  for (int i = 0; i < kWarpSize; ++i)
    if (meeting.has(i)) std::memcpy(&items[i], &meeting.lanes[i], sizeof(Shuffle));
  for (int i = 0; i < kWarpSize; ++i) {
    if (!meeting.has(i)) continue;
    results[i] = items[i];
    results[i].found = meeting.has(items[i].from);
    if (results[i].found) results[i].value = items[items[i].from].value;
    std::memcpy(&meeting.lanes[i], &results[i], sizeof(Shuffle));
  }
}
template <typename T>
T shuffle(const char* operation, T v, int from, const Where& where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  Shuffle item = {0, from, 0};
  std::memcpy(&item.value, &v, sizeof v);
  LaneData data = {};
  std::memcpy(&data, &item, sizeof item);
  meet(operation, kAllLanes, where, data, exchange_shuffle);
  std::memcpy(&item, &data, sizeof item);
  if (!item.found)
    fail(std::string(operation) + " reads lane " + std::to_string(from) +
         ", which has left or does not exist");
  std::memcpy(&v, &item.value, sizeof v);
  return v;
}
inline uint32_t vote(const char* operation, bool pred, const Where& where) {
  LaneData data = {};
  data.bytes[0] = pred;
  meet(operation, kAllLanes, where, data, [](Meeting& meeting) {
    uint32_t mask = 0;
    for (int i = 0; i < kWarpSize; ++i)
      if (meeting.has(i) && meeting.lanes[i].bytes[0]) mask |= 1u << i;
    for (int i = 0; i < kWarpSize; ++i) std::memcpy(meeting.lanes[i].bytes, &mask, sizeof mask);
    const uint32_t present = meeting.present;
    for (int i = 0; i < kWarpSize; ++i)
      std::memcpy(meeting.lanes[i].bytes + 4, &present, sizeof present);
  });
  uint32_t mask;
  std::memcpy(&mask, data.bytes, sizeof mask);
  return mask;
}

}  // namespace emulation

template <typename T>
T shfl(T v, int from, Where where = Where::current()) {
  return emulation::shuffle("shfl", v, from & 31, where);
}
template <typename T>
T shfl_xor(T v, int mask, Where where = Where::current()) {
  return emulation::shuffle("shfl_xor", v, (lane() ^ mask) & 31, where);
}
template <typename T>
T shfl_down(T v, int delta, Where where = Where::current()) {
  const int from = lane() + delta;
  return emulation::shuffle("shfl_down", v, from < 32 ? from : lane(), where);
}
template <typename T>
T shfl_up(T v, int delta, Where where = Where::current()) {
  const int from = lane() - delta;
  return emulation::shuffle("shfl_up", v, from >= 0 ? from : lane(), where);
}
inline uint32_t ballot(bool pred, Where where = Where::current()) {
  return emulation::vote("ballot", pred, where);
}
inline bool any(bool pred, Where where = Where::current()) {
  return emulation::vote("any", pred, where) != 0;
}
inline bool all(bool pred, Where where = Where::current()) {
  return emulation::vote("all", !pred, where) == 0;
}

// Only one thread runs at a time: plain operations are atomic.
template <typename T>
T atomic_add(T* p, T v) {
  const T old = *p;
  *p = old + v;
  return old;
}
template <typename T>
T atomic_max(T* p, T v) {
  const T old = *p;
  if (v > old) *p = v;
  return old;
}
template <typename T>
T atomic_min(T* p, T v) {
  const T old = *p;
  if (v < old) *p = v;
  return old;
}
template <typename T>
T atomic_or(T* p, T v) {
  const T old = *p;
  *p = old | v;
  return old;
}
template <typename T>
T atomic_cas(T* p, T expected, T desired) {
  const T old = *p;
  if (old == expected) *p = desired;
  return old;
}
template <typename T>
T atomic_exch(T* p, T v) {
  const T old = *p;
  *p = v;
  return old;
}
inline void fence() {}

inline int popcount(uint32_t x) { return std::popcount(x); }
inline int lowest_bit(uint32_t x) { return x ? std::countr_zero(x) : -1; }
inline int leading_zeros(uint32_t x) { return std::countl_zero(x); }

inline void check_alignment(const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    emulation::fail("accesses " + std::to_string(bytes) +
                    " bytes at an address that is no multiple");
}
inline void store_words(void* to, const uint32_t (&words)[4]) { std::memcpy(to, words, 16); }
template <typename T>
T load_read_only(const T* p) {
  check_alignment(p, alignof(T));
  return *p;
}

}  // namespace mixpl::cuda

#include "core/cuda/emulation/tensor_cores.h"
