// core/cuda/runtime.h on the CUDA runtime, which is linked statically and finds the driver when it
// is first asked: the same binary runs on machines without one.
#include "core/cuda/runtime.h"

#include <cxxabi.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "core/allocator.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/error.h"
#include "core/cuda/launch.h"
#include "core/cuda/side_stream.h"
#include "core/cuda/staging.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {

std::atomic<int64_t> waits{0};
thread_local int thread_device = -1;
thread_local int side_device = -1;  // whose side stream this thread is on

std::string version(int v) { return str(v / 1000, ".", v % 1000 / 10); }

// --- architectures: MIXPL_CUDA_ARCHITECTURE_LIST is CMake's list, "80-real,90a-real,120"

struct Architecture {
  int number;     // 90
  bool specific;  // 90a: for exactly this one
  bool ptx;       // code that the driver can compile for later ones
};

constexpr int kOldest = 80;  // of a release: asynchronous copies and bf16 begin there

std::vector<Architecture> built_architectures() {
  std::vector<Architecture> list;
  std::string_view rest = MIXPL_CUDA_ARCHITECTURE_LIST;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    int number = 0;
    const char* stop = std::from_chars(item.data(), item.data() + item.size(), number).ptr;
    const bool specific = stop != item.data() + item.size() && (*stop == 'a' || *stop == 'f');
    list.push_back({number, specific, item.find("-real") == std::string_view::npos});
  }
  return list;
}

bool runs_on(const Architecture& a, int device) {
  if (a.number == device) return true;
  if (a.specific) return false;
  return a.ptx ? device > a.number : a.number / 10 == device / 10 && a.number < device;
}

// --- devices

int count_devices(std::string& reason) {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t asked = cudaDriverGetVersion(&driver);
  const cudaError_t counted = cudaGetDeviceCount(&count);
  cudaGetLastError();  // no trace of it in later calls
  if (asked != cudaSuccess || driver == 0) {
    reason = "no NVIDIA driver was found";
  } else if (counted == cudaErrorInsufficientDriver) {
    reason = str("the NVIDIA driver is too old (it offers CUDA ", version(driver),
                 ", this build needs ", version(runtime), ")");
  } else if (counted == cudaErrorNoDevice || (counted == cudaSuccess && count == 0)) {
    reason = "the NVIDIA driver shows no GPU";
  } else if (counted != cudaSuccess) {
    reason = str("the GPUs could not be listed: ", cudaGetErrorString(counted));
  }
  return reason.empty() ? count : 0;
}

DeviceInfo describe_device(int index) {
  DeviceInfo info;
  info.device = Device::cuda(index);
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    cudaGetLastError();
    info.usable = false;
    info.reason = str("the GPU does not answer: ", cudaGetErrorString(error));
    return info;
  }
  info.name = properties.name;
  info.total_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  info.major = properties.major;
  info.minor = properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  const int number = 10 * properties.major + properties.minor;
  info.usable = false;
  for (const Architecture& a : built_architectures()) info.usable |= runs_on(a, number);
  if (!info.usable) {
    std::string built;
    for (const std::string& a : architectures()) built += (built.empty() ? "" : ", ") + a;
    info.reason = str("the GPU '", info.name, "' has architecture ", number,
                      ", this build has code for ", built);
    if (number >= kOldest)
      info.reason += "; a build for every GPU: npm run build:native -- --CDMIXPL_RELEASE=ON";
  }
  return info;
}

// --- streams and memory of each device

class GpuMemory final : public MemorySource {
 public:
  explicit GpuMemory(int index) : index_(index) {}
  void* allocate(int64_t bytes) override {
    const OnDevice scope(index_);
    void* block = nullptr;
    const cudaError_t error = cudaMalloc(&block, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    MIXPL_CUDA(error);
    return block;
  }
  void free(void* block, int64_t) override {
    const OnDevice scope(index_);
    cudaFree(block);  // waits for kernels that use it; at exit the driver may be gone already
    cudaGetLastError();
  }
  std::string describe() const override {
    const OnDevice scope(index_);
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return str("cuda:", index_, ", where ", free, " of ", total, " bytes are free");
  }

 private:
  // The pool may be asked on a thread that works on another device.
  struct OnDevice {
    explicit OnDevice(int index) : before(thread_device) { use_device(index); }
    ~OnDevice() {
      if (before >= 0) use_device(before);
    }
    int before;
  };
  int index_;
};

struct Gpu {
  explicit Gpu(int index) : memory(index) {
    MIXPL_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    // What is beside is wanted first: what the host does with it, the other stream's work hides.
    int lowest = 0, highest = 0;
    MIXPL_CUDA(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
    MIXPL_CUDA(cudaStreamCreateWithPriority(&side, cudaStreamNonBlocking, highest));
    for (cudaEvent_t* event : {&forked, &joined})
      MIXPL_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    MIXPL_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, index));
    const DeviceInfo info = describe_device(index);
    for (const Architecture& a : built_architectures())
      warpgroups |= a.number == 90 && a.specific && 10 * info.major + info.minor == 90;
  }
  cudaStream_t stream = nullptr, side = nullptr;
  cudaEvent_t forked = nullptr, joined = nullptr;
  int multiprocessors = 0;
  bool warpgroups = false;
  GpuMemory memory;
  Staging staging;
  std::mutex mutex;
  std::map<const void*, size_t> shared_allowed;
};

// Never destroyed: at exit the driver may go before us.
Gpu& gpu_of(int index) {
  static std::mutex mutex;
  static auto* gpus = new std::map<int, std::unique_ptr<Gpu>>;
  std::lock_guard lock(mutex);
  std::unique_ptr<Gpu>& gpu = (*gpus)[index];
  if (!gpu) {
    use_device(index);
    gpu = std::make_unique<Gpu>(index);
  }
  return *gpu;
}
Gpu& current_gpu() {
  thread_local Gpu* gpu = nullptr;
  thread_local int index = -1;
  if (index != current_device() || !gpu) {
    use_device(current_device());
    gpu = &gpu_of(current_device());
    index = current_device();
  }
  return *gpu;
}

std::string kernel_name(const void* kernel) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) != cudaSuccess || !mangled) {
    cudaGetLastError();
    return "a kernel";
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return status == 0 ? plain.get() : mangled;
}

// A kernel's fault: every later call on the device says so, whatever it was for.
bool is_fault(cudaError_t error) {
  switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
      return true;
    default:
      return false;
  }
}
bool waits_for_kernels() {
  static const bool wait = [] {
    const char* value = std::getenv("MIXPL_CUDA_SYNC");
    return value && *value && std::strcmp(value, "0") != 0;
  }();
  return wait;
}
const char* whose_fault(cudaError_t error) {
  if (!is_fault(error) || waits_for_kernels()) return "";
  return "; an earlier kernel did it; set MIXPL_CUDA_SYNC=1 to see which";
}

}  // namespace

void throw_error(cudaError_t error, const char* call, const char* file, int line) {
  cudaGetLastError();
  const std::string_view path = file;
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const std::string message =
      str("cuda: ", call, " (", name, ":", line, ") failed: ", cudaGetErrorString(error), " (",
          cudaGetErrorName(error), ")");
  if (error == cudaErrorMemoryAllocation) throw OutOfMemoryError(message);
  throw DeviceError(message + whose_fault(error));
}

std::vector<DeviceInfo> list_devices() {
  std::string reason;
  const int count = count_devices(reason);
  std::vector<DeviceInfo> devices;
  for (int i = 0; i < count; ++i) devices.push_back(describe_device(i));
  return devices;
}

std::string unusable_reason() {
  std::string reason;
  const int count = count_devices(reason);
  for (int i = 0; i < count; ++i) {
    const DeviceInfo info = describe_device(i);
    if (info.usable) return "";
    if (reason.empty()) reason = info.reason;
  }
  return reason;
}

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  for (const Architecture& a : built_architectures())
    names.push_back(str(a.number, a.specific ? "a" : "", a.ptx ? "+" : ""));
  return names;
}

bool is_emulated() { return false; }
void set_emulation(uint64_t, int) { throw DeviceError("cuda: no device is emulated here"); }
void set_emulated_faults(const EmulatedFaults&) {
  throw DeviceError("cuda: no device is emulated here");
}

void use_device(int index) {
  if (thread_device == index) return;
  MIXPL_CUDA(cudaSetDevice(index));
  thread_device = index;
}
int current_device() { return thread_device < 0 ? 0 : thread_device; }
int multiprocessors() { return current_gpu().multiprocessors; }
bool has_warpgroups() { return current_gpu().warpgroups; }
cudaStream_t stream_now() {
  const Gpu& gpu = current_gpu();
  return side_device == current_device() ? gpu.side : gpu.stream;
}
void* current_stream() { return stream_now(); }
MemorySource& memory_source(int index) { return gpu_of(index).memory; }

void copy_to_device(void* device, const void* host, size_t bytes) {
  if (!bytes) return;
  current_gpu().staging.copy(device, host, bytes, stream_now());
}
void copy_to_host(void* host, const void* device, size_t bytes) {
  if (!bytes) return;
  const cudaStream_t stream = stream_now();
  ++waits;
  MIXPL_CUDA(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream));
  MIXPL_CUDA(cudaStreamSynchronize(stream));
}
void copy_on_device(void* to, const void* from, size_t bytes) {
  if (!bytes) return;
  MIXPL_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_now()));
}
void memset_device(void* device, int byte, size_t bytes) {
  if (!bytes) return;
  MIXPL_CUDA(cudaMemsetAsync(device, byte, bytes, stream_now()));
}
void synchronize() {
  ++waits;
  const Gpu& gpu = current_gpu();
  MIXPL_CUDA(cudaStreamSynchronize(gpu.side));
  MIXPL_CUDA(cudaStreamSynchronize(gpu.stream));
}
int64_t synchronisations() { return waits; }
void count_synchronisation() { ++waits; }

void allow_shared_memory(const void* kernel, size_t bytes) {
  Gpu& gpu = current_gpu();
  std::lock_guard lock(gpu.mutex);
  size_t& allowed = gpu.shared_allowed[kernel];
  if (bytes <= allowed) return;
  MIXPL_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
  allowed = bytes;
}

void check_launch(const void* kernel, const Grid& grid, dim3 block, size_t dynamic_shared) {
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess && waits_for_kernels()) error = cudaStreamSynchronize(stream_now());
  if (error == cudaSuccess) return;
  const std::string_view path = grid.where.file_name();
  throw DeviceError(str(grid.where.function_name(), " (", path.substr(path.rfind('/') + 1), ":",
                        grid.where.line(), "): ", kernel_name(kernel), " in ", grid.size.x, "x",
                        grid.size.y, "x", grid.size.z, " blocks of ", block.x, "x", block.y, "x",
                        block.z, " threads with ", dynamic_shared,
                        " bytes of shared memory failed: ", cudaGetErrorString(error), " (",
                        cudaGetErrorName(error), ")", whose_fault(error)));
}

// --- the side stream

bool has_side_stream() {
  static const bool one = [] {
    const char* value = std::getenv("MIXPL_CUDA_STREAMS");
    return value && std::strcmp(value, "1") == 0;
  }();
  return !one;
}

void enter_side_stream() {
  const Gpu& gpu = current_gpu();
  MIXPL_CUDA(cudaEventRecord(gpu.forked, gpu.stream));
  MIXPL_CUDA(cudaStreamWaitEvent(gpu.side, gpu.forked, 0));
  side_device = current_device();
}
void leave_side_stream() { side_device = -1; }
void join_side_stream() {
  const Gpu& gpu = current_gpu();
  MIXPL_CUDA(cudaEventRecord(gpu.joined, gpu.side));
  MIXPL_CUDA(cudaStreamWaitEvent(gpu.stream, gpu.joined, 0));
}

}  // namespace mixpl::cuda
