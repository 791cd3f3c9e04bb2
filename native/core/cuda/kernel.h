// All that a kernel file needs: launching, intrinsics, vector accesses, reductions. The same source
// is compiled by nvcc for GPUs and, with MIXPL_CUDA_EMULATED, by the host compiler for the
// emulation.
#pragma once

#include "core/cuda/intrinsics.h"
#include "core/cuda/launch.h"
#include "core/cuda/reduce.h"
#include "core/cuda/runtime.h"
#include "core/cuda/vec.h"
#include "core/tensor.h"
