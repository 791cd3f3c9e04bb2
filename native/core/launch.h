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

namespace mixpl::cuda {
void use_device(int index);
}

#define MIXPL_DISPATCH(device, fn, ...)                                                    \
  ((device).is_cuda() ? (::mixpl::cuda::use_device((device).index), cuda::fn(__VA_ARGS__)) \
                      : cpu::fn(__VA_ARGS__))
#else
#define MIXPL_DISPATCH(device, fn, ...) cpu::fn(__VA_ARGS__)
#endif
