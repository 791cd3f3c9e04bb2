// The emulated device's answers to core/cuda/runtime.h: all work is done when a call returns.
#include <chrono>
#include <cstring>

#include "core/cuda/emulation/device_memory.h"
#include "core/cuda/emulation/faults.h"
#include "core/cuda/emulation/grid.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/runtime.h"
#include "core/cuda/side_stream.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {
int64_t waits = 0;
}  // namespace

std::vector<DeviceInfo> list_devices() {
  DeviceInfo info;
  info.device = Device::cuda(0);
  info.name = "emulated GPU";
  info.total_bytes = emulation::device_memory_bytes();
  info.free_bytes = emulation::free_device_memory();
  info.major = 9;
  info.multiprocessors = emulation::kMultiprocessors;
  return {info};
}
std::string unusable_reason() { return ""; }
std::vector<std::string> architectures() { return {"emulated"}; }
bool is_emulated() { return true; }
void set_emulation(uint64_t order_seed, int poison) {
  emulation::settings() = {order_seed, static_cast<uint8_t>(poison)};
}

void use_device(int index) {
  if (index != 0) throw DeviceError(str("cuda: there is one emulated device, got ", index));
}
int current_device() { return 0; }
int multiprocessors() { return emulation::kMultiprocessors; }
bool has_warpgroups() { return true; }
MemorySource& memory_source(int index) {
  use_device(index);
  return emulation::device_memory();
}

void copy_to_device(void* device, const void* host, size_t bytes) {
  if (!bytes) return;
  emulation::require_device("copy_to_device");
  emulation::require_device_memory("copy_to_device", device, bytes);
  emulation::DeviceMemoryAccess access;
  std::memcpy(device, host, bytes);
}
void copy_to_host(void* host, const void* device, size_t bytes) {
  if (!bytes) return;
  emulation::require_device("copy_to_host");
  ++waits;
  emulation::require_device_memory("copy_to_host", device, bytes);
  emulation::DeviceMemoryAccess access;
  std::memcpy(host, device, bytes);
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  if (!bytes) return;
  emulation::require_device("copy_on_device");
  emulation::require_device_memory("copy_on_device", to, bytes);
  emulation::require_device_memory("copy_on_device", from, bytes);
  emulation::DeviceMemoryAccess access;
  std::memcpy(to, from, bytes);
}
void memset_device(void* device, int byte, size_t bytes) {
  if (!bytes) return;
  emulation::require_device("memset_device");
  emulation::require_device_memory("memset_device", device, bytes);
  emulation::DeviceMemoryAccess access;
  std::memset(device, byte, bytes);
}
void synchronize() {
  emulation::require_device("synchronize");
  ++waits;
}
void* current_stream() { return nullptr; }
int64_t synchronisations() { return waits; }
// All work is done when a call returns, so nothing is beside anything.
bool has_side_stream() { return false; }
void enter_side_stream() {}
void leave_side_stream() {}
void join_side_stream() {}

Readback::Readback(const void* device, size_t bytes) : handle_(new char[bytes]) {
  if (!bytes) return;
  emulation::require_device("Readback");
  emulation::require_device_memory("Readback", device, bytes);
  emulation::DeviceMemoryAccess access;
  std::memcpy(handle_, device, bytes);
}
Readback::~Readback() { delete[] static_cast<char*>(handle_); }
const void* Readback::wait() {
  emulation::require_device("Readback::wait");
  ++waits;
  return handle_;
}

Event::Event() : handle_(new double(0)) {}
Event::~Event() { delete static_cast<double*>(handle_); }
void Event::record() {
  *static_cast<double*>(handle_) =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
}
double Event::ms_since(const Event& start) const {
  return *static_cast<double*>(handle_) - *static_cast<double*>(start.handle_);
}

}  // namespace mixpl::cuda
