// How functions for the device are marked.
#pragma once

#include "core/launch.h"

#if defined(MIXPL_CUDA_EMULATED)
#include "core/cuda/emulation/vectors.h"
#else
#include <cuda_runtime.h>
#endif

#define MIXPL_DEVICE __device__ inline
#define MIXPL_KERNEL __global__ void
