// Caching allocator: blocks return to a pool, so a training step allocates nothing new once warm.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/device.h"

namespace mixpl {

struct MemoryStats {
  int64_t live_bytes = 0;          // handed out now
  int64_t peak_live_bytes = 0;     // most that was ever handed out since reset_peak
  int64_t cached_bytes = 0;        // held for reuse
  int64_t system_allocations = 0;  // times the system was asked for memory
  int64_t synchronisations = 0;    // times the host waited for a GPU (all of them together)
};

/// Where a pool gets its blocks. Called under the pool's lock.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  /// nullptr when there is none left.
  virtual void* allocate(int64_t bytes) = 0;
  virtual void free(void* block, int64_t bytes) = 0;
  /// For error messages: the device, and how much it has free if that is known.
  virtual std::string describe() const = 0;
  /// A block of `size` bytes goes to somebody who may use the first `bytes` of them, or comes back.
  virtual void on_take(void* block, int64_t bytes, int64_t size) {}
  virtual void on_give_back(void* block, int64_t size) {}
};

/// 64-byte aligned memory, returned to the device's pool when the last owner lets go.
/// @throws OutOfMemoryError, after what the pool could give back was given back and it still failed
std::shared_ptr<void> allocate(int64_t bytes, Device device);

MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);
/// Gives back to the system what lies in segments of which nothing is in use.
void release_cached_memory(Device device);

}  // namespace mixpl
