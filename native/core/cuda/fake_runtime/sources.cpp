// As nvcc compiles them for the addon, here against the fake runtime.
#include "core/cuda/readback_cuda.cu"
#include "core/cuda/runtime_cuda.cu"
#include "core/cuda/staging_cuda.cu"
