// CUDA's built-in launch types and keywords, for the host compiler.
#pragma once

namespace mixpl::cuda {
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
}  // namespace mixpl::cuda

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
