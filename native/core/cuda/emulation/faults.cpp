#include "core/cuda/emulation/faults.h"

#include <algorithm>
#include <mutex>
#include <string>

#include "core/cuda/emulation_settings.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace emulation {
namespace {

std::mutex mutex;
EmulatedFaults faults;
bool lost = false;

[[noreturn]] void refuse(const std::string& call) {
  throw DeviceError(str(
      "cuda: ", call, " failed: the GPU was lost (emulated); this process cannot use it any more"));
}

}  // namespace

void require_device(const char* call) {
  std::lock_guard lock(mutex);
  if (lost) refuse(call);
}

void before_launch(const std::source_location& where) {
  std::lock_guard lock(mutex);
  if (faults.launches_to_loss >= 0 && faults.launches_to_loss-- == 0) lost = true;
  const std::string file = where.file_name();
  const std::string launch =
      str(where.function_name(), " (", file.substr(file.rfind('/') + 1), ":", where.line(), ")");
  if (lost) refuse(launch);
  if (faults.launches_to_fail >= 0 && faults.launches_to_fail-- == 0)
    throw DeviceError(str(launch, ": the launch failed (emulated)"));
}

int64_t memory_limit(int64_t whole) {
  std::lock_guard lock(mutex);
  return faults.memory_bytes < 0 ? whole : std::min(whole, faults.memory_bytes);
}

}  // namespace emulation

void set_emulated_faults(const EmulatedFaults& faults) {
  std::lock_guard lock(emulation::mutex);
  emulation::faults = faults;
  emulation::lost = false;
}

}  // namespace mixpl::cuda
