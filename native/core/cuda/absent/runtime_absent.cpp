// A build without CUDA: there is no device, and nothing else here is ever reached.
#include "core/allocator.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/runtime.h"
#include "core/cuda/side_stream.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {
[[noreturn]] void refuse() { throw DeviceError("cuda: this build has no CUDA backend"); }
}  // namespace

std::vector<DeviceInfo> list_devices() { return {}; }
std::string unusable_reason() { return "this build has no CUDA backend"; }
std::vector<std::string> architectures() { return {}; }
bool is_emulated() { return false; }
bool has_warpgroups() { return false; }
void set_emulation(uint64_t, int) { refuse(); }
void set_emulated_faults(const EmulatedFaults&) { refuse(); }
void use_device(int) { refuse(); }
int current_device() { refuse(); }
int multiprocessors() { refuse(); }
MemorySource& memory_source(int) { refuse(); }
void copy_to_device(void*, const void*, size_t) { refuse(); }
void copy_to_host(void*, const void*, size_t) { refuse(); }
void copy_on_device(void*, const void*, size_t) { refuse(); }
void memset_device(void*, int, size_t) { refuse(); }
void synchronize() { refuse(); }
void* current_stream() { refuse(); }
int64_t synchronisations() { return 0; }
bool has_side_stream() { return false; }
void enter_side_stream() { refuse(); }
void leave_side_stream() { refuse(); }
void join_side_stream() { refuse(); }
Readback::Readback(const void*, size_t) { refuse(); }
Readback::~Readback() = default;
const void* Readback::wait() { refuse(); }
Event::Event() { refuse(); }
Event::~Event() = default;
void Event::record() { refuse(); }
double Event::ms_since(const Event&) const { refuse(); }

}  // namespace mixpl::cuda
