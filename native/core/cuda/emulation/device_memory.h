// The emulated device's memory: an arena that the host can only touch inside kernels and copies,
// with guards between the blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mixpl {
class MemorySource;
}

namespace mixpl::cuda::emulation {

MemorySource& device_memory();

/// Opens the arena while it lives; everywhere else an access throws a DeviceError that says so.
class DeviceMemoryAccess {
 public:
  DeviceMemoryAccess();
  ~DeviceMemoryAccess();
  DeviceMemoryAccess(const DeviceMemoryAccess&) = delete;
  DeviceMemoryAccess& operator=(const DeviceMemoryAccess&) = delete;
};

/// @throws DeviceError unless [p, p + bytes) lies within one block that is in use
void require_device_memory(const char* call, const void* p, size_t bytes);
bool is_device_memory(const void* p);
/// What was overwritten between blocks, "" when nothing. (AddressSanitizer has stopped it before.)
std::string check_device_memory();
int64_t device_memory_bytes();
int64_t free_device_memory();

}  // namespace mixpl::cuda::emulation
