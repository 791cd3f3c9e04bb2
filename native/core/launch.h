// What a function needs to run on either device, and the one place that picks a backend.
#pragma once

#if defined(__CUDACC__)
#define MIXPL_HD __host__ __device__ inline
#else
#define MIXPL_HD inline
#endif

// MIXPL_DISPATCH(device, fn, args...) calls cpu::fn(args...) or cuda::fn(args...). The only backend
// #ifdef in the tree.
#if defined(MIXPL_WITH_CUDA)
#include "core/device.h"
#if __has_include("mixpl_cuda_entries.h")
#include "mixpl_cuda_entries.h"  // made by CMake: which entries a *_cuda.cu file has
#endif

namespace mixpl {
/// @throws DeviceError when `device` is not the CPU: `entry` has no kernel yet
void require_cpu(Device device, const char* entry);
namespace cuda {
void use_device(int index);
}
}  // namespace mixpl

// An entry with kernels is listed as `#define MIXPL_CUDA_ENTRY_<fn> ~, MIXPL_DISPATCH_BOTH`, which
// shifts MIXPL_DISPATCH_CPU out of the second place.
#define MIXPL_SECOND(first, second, ...) second
#define MIXPL_PICK(...) MIXPL_SECOND(__VA_ARGS__, ~)
#define MIXPL_DISPATCH(device, fn, ...) \
  MIXPL_PICK(MIXPL_CUDA_ENTRY_##fn, MIXPL_DISPATCH_CPU)(device, fn, __VA_ARGS__)
#define MIXPL_DISPATCH_BOTH(device, fn, ...)                                               \
  ((device).is_cuda() ? (::mixpl::cuda::use_device((device).index), cuda::fn(__VA_ARGS__)) \
                      : cpu::fn(__VA_ARGS__))
#define MIXPL_DISPATCH_CPU(device, fn, ...) \
  (::mixpl::require_cpu(device, #fn), cpu::fn(__VA_ARGS__))
#else
#define MIXPL_DISPATCH(device, fn, ...) cpu::fn(__VA_ARGS__)
#endif
