// Launching kernels on the current device's stream.
#pragma once

#include <algorithm>
#include <cstdint>
#include <source_location>
#include <type_traits>

#include "core/cuda/keywords.h"
#include "core/cuda/runtime.h"

#if defined(MIXPL_CUDA_EMULATED)
#include "core/cuda/emulation/device_memory.h"
#include "core/cuda/emulation/grid.h"
#endif

namespace mixpl::cuda {

/// Size of a grid, and who launched it: errors name the function and the line.
struct Grid {
  dim3 size;
  std::source_location where;

  Grid(dim3 size, std::source_location where = std::source_location::current())
      : size(size), where(where) {}
  template <typename Count, typename = std::enable_if_t<std::is_integral_v<Count>>>
  Grid(Count x, std::source_location where = std::source_location::current())
      : size(static_cast<unsigned>(x)), where(where) {}
  bool empty() const { return !size.x || !size.y || !size.z; }
};

#if defined(MIXPL_CUDA_EMULATED)
inline bool looks_like_host_memory(const void* p) { return p && !emulation::is_device_memory(p); }
#else
/// What CUDA says about the launch just made. @throws DeviceError
void check_launch(const void* kernel, const Grid& grid, dim3 block, size_t dynamic_shared);
/// Allows a kernel more dynamic shared memory than the 48 KiB that all have.
void allow_shared_memory(const void* kernel, size_t bytes);
#endif

/// kernel<<<grid, block, dynamic_shared_bytes>>>(args...); nothing when the grid is empty.
/// @throws DeviceError when the launch fails
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), Grid grid, dim3 block, size_t dynamic_shared_bytes,
            Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args), "one argument per parameter of the kernel");
  static_assert((sizeof(Params) + ... + 0) <= 4000, "a kernel's parameters must fit in 4 KB");
  static_assert((std::is_trivially_copyable_v<Params> && ...),
                "kernels take plain values and device pointers, no owners of memory");
  if (grid.empty()) return;
#if defined(MIXPL_CUDA_EMULATED)
  const auto check = [&](const auto& arg) {
    if constexpr (std::is_pointer_v<std::decay_t<decltype(arg)>>)
      if (looks_like_host_memory(arg))
        emulation::fail(
            std::string(grid.where.function_name()) +
            ": a kernel's pointer must be into device memory, got one into host memory");
  };
  (check(args), ...);
  auto body = [&] { kernel(args...); };
  emulation::run_grid(grid.where, grid.size, block, dynamic_shared_bytes, emulation::Body(body));
#else
  const void* address = reinterpret_cast<const void*>(kernel);
  if (dynamic_shared_bytes > 48 << 10) allow_shared_memory(address, dynamic_shared_bytes);
#if defined(__CUDACC__)
  kernel<<<grid.size, block, dynamic_shared_bytes, static_cast<cudaStream_t>(current_stream())>>>(
      static_cast<Params>(args)...);
#endif
  check_launch(address, grid, block, dynamic_shared_bytes);
#endif
}

/// Blocks of a grid-stride loop over n items: enough for all, at most a few waves of the device.
inline unsigned blocks_for(int64_t n, int threads = 256, int per_thread = 1) {
  const int64_t per_block = int64_t{threads} * per_thread;
  const int64_t wanted = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(std::min<int64_t>(wanted, int64_t{multiprocessors()} * 32));
}

/// Index of this thread in a 1-D grid, and how many there are: for grid-stride loops.
MIXPL_DEVICE int64_t thread_index() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
MIXPL_DEVICE int64_t thread_count() { return int64_t{gridDim.x} * blockDim.x; }

template <typename F>
MIXPL_KERNEL for_each_kernel(int64_t n, F f) {
  for (int64_t i = thread_index(); i < n; i += thread_count()) f(i);
}

/// f(i) for i in [0, n). F is a plain struct with `MIXPL_DEVICE void operator()(int64_t i) const`.
template <typename F>
void for_each(int64_t n, F f, std::source_location where = std::source_location::current()) {
  launch(for_each_kernel<F>, Grid(blocks_for(n), where), 256, 0, n, f);
}

}  // namespace mixpl::cuda
