// Attention with AVX2.
#include "ops/attention/attention_kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD  // the baseline has it
#define MIXPL_SIMD_NAME avx2
#include "ops/attention/simd/backward.h"
#include "ops/attention/simd/forward.h"

namespace mixpl::cpu::attention {

const Kernels& avx2_kernels() {
  static constexpr Kernels kernels{forward, backward};
  return kernels;
}

}  // namespace mixpl::cpu::attention
#endif
