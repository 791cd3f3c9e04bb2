// CUDA's error codes as mixpl's exceptions; for files that nvcc compiles.
#pragma once

#include <cuda_runtime.h>

namespace mixpl::cuda {

/// @throws OutOfMemoryError, DeviceError with the call, its place and CUDA's text
[[noreturn]] void throw_error(cudaError_t error, const char* call, const char* file, int line);
inline void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error != cudaSuccess) throw_error(error, call, file, line);
}

}  // namespace mixpl::cuda

#define MIXPL_CUDA(call) ::mixpl::cuda::check((call), #call, __FILE__, __LINE__)
