// What the host asks of GPUs: which there are, memory, copies, waiting. Plain C++: three
// implementations answer it (runtime_cuda.cu, emulation/, and absent/ in a build without CUDA).
//
// A device's stream carries all kernels and copies in the order of the calls, from any thread, so
// memory that goes back to the pool may be handed out at once. (A second one: core/side_work.h.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"

namespace mixpl {
class MemorySource;
}

namespace mixpl::cuda {

/// Every GPU the driver shows, usable or not; none in a build without CUDA.
std::vector<DeviceInfo> list_devices();
/// Why no GPU can be used, "" when one can: no CUDA in this build, no driver, a driver that is too
/// old, no device, no code for its architecture.
std::string unusable_reason();
/// Architectures with code in this binary, e.g. {"80", "90a"}; a last "120+" is code for later
/// ones.
std::vector<std::string> architectures();
/// The devices are an emulation on the host, for tests.
bool is_emulated();

/// Makes `index` the device that this thread's launches and copies go to.
void use_device(int index);
int current_device();
int multiprocessors();
/// Whether it has wgmma, and this build code for it.
bool has_warpgroups();

/// Memory of one device, uncached; the pool in core/allocator.cpp keeps it.
MemorySource& memory_source(int index);

/// `host` may be reused when this returns; does not wait for the device.
void copy_to_device(void* device, const void* host, size_t bytes);
/// Waits for all earlier work: the values are there when it returns.
void copy_to_host(void* host, const void* device, size_t bytes);
void copy_on_device(void* to, const void* from, size_t bytes);
void memset_device(void* device, int byte, size_t bytes);
/// Waits for all earlier work of the current device. @throws DeviceError when some of it failed
void synchronize();
/// The stream that kernels and copies of this thread are in, a cudaStream_t; none on an emulated
/// device.
void* current_stream();
/// Times the host waited for a device so far.
int64_t synchronisations();

/// Values on their way to the host: a copy behind all work given to the current device so far.
class Readback {
 public:
  Readback(const void* device, size_t bytes);
  ~Readback();
  Readback(const Readback&) = delete;
  Readback& operator=(const Readback&) = delete;
  /// The values, as long as this lives. Waits for the copy, not for what was given to the device
  /// after it. @throws DeviceError when earlier work failed
  const void* wait();

 private:
  void* handle_ = nullptr;
};

/// A point in the stream, for measuring.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record();
  /// Time from `start` to this one on the device; waits for this one.
  double ms_since(const Event& start) const;

 private:
  void* handle_ = nullptr;
};

}  // namespace mixpl::cuda
