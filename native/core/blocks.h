// Blocks of one device's memory, for core/allocator.cpp. Under its lock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>

namespace mixpl {

struct Block {
  char* at;
  int64_t size;
};

/// Hands out blocks and keeps those that come back.
class Blocks {
 public:
  virtual ~Blocks() = default;

  /// A block that is kept, for `bytes` or some more, or null.
  virtual Block* take(int64_t bytes) = 0;
  /// One for which the system gives memory, or null where it has none left.
  virtual Block* get(int64_t bytes) = 0;
  virtual void give_back(Block* block) = 0;
  /// Gives to the system what is kept.
  virtual void release() = 0;

  /// Bytes that are kept.
  int64_t cached_bytes() const { return cached_bytes_; }
  /// How often the system was asked for memory.
  int64_t system_allocations() const { return system_allocations_; }

 protected:
  int64_t cached_bytes_ = 0, system_allocations_ = 0;
};

/// By size, then by address.
struct BySize {
  bool operator()(const Block* a, const Block* b) const {
    return a->size != b->size ? a->size < b->size : a->at < b->at;
  }
};
template <typename B>
using BlocksBySize = std::set<B*, BySize>;

inline int64_t rounded_up(int64_t bytes, int64_t step) { return (bytes + step - 1) / step * step; }

}  // namespace mixpl
