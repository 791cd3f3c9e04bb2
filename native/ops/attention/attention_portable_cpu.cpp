// Attention for processors that have no file of their own.
#include "ops/attention/attention_kernels.h"

#if !defined(__x86_64__)
#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD
#define MIXPL_SIMD_NAME portable_lanes
#define MIXPL_SIMD_PORTABLE
#include "ops/attention/simd/backward.h"
#include "ops/attention/simd/forward.h"

namespace mixpl::cpu::attention {

const Kernels& portable_kernels() {
  static constexpr Kernels kernels{forward, backward};
  return kernels;
}

}  // namespace mixpl::cpu::attention
#endif
