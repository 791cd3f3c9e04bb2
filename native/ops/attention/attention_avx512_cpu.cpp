// Attention with AVX-512.
#include "ops/attention/attention_kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 16
#define MIXPL_SIMD MIXPL_AVX512_BF16
#define MIXPL_SIMD_NAME avx512
#include "ops/attention/simd/backward.h"
#include "ops/attention/simd/forward.h"

namespace mixpl::cpu::attention {

const Kernels& avx512_kernels() {
  static constexpr Kernels kernels{forward, backward};
  return kernels;
}

}  // namespace mixpl::cpu::attention
#endif
