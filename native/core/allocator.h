// Caching allocator: blocks return to a pool, so a training step allocates nothing new once warm.
#pragma once

#include <cstdint>
#include <memory>

#include "core/device.h"

namespace mixpl {

struct MemoryStats {
  int64_t live_bytes = 0;          // handed out now
  int64_t peak_live_bytes = 0;     // most that was ever handed out since reset_peak
  int64_t cached_bytes = 0;        // held for reuse
  int64_t system_allocations = 0;  // times the system was asked for memory
};

/// 64-byte aligned memory, returned to the device's pool when the last owner lets go.
/// @throws OutOfMemoryError, after the pool's unused blocks were given back and it still failed
std::shared_ptr<void> allocate(int64_t bytes, Device device);

MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);
/// Gives every unused block back to the system.
void release_cached_memory(Device device);

}  // namespace mixpl
