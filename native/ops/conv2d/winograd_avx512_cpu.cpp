// Winograd's convolutions with AVX-512.
#include "ops/conv2d/winograd/kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 16
#define MIXPL_SIMD MIXPL_AVX512_BF16
#define MIXPL_SIMD_NAME avx512
#include "ops/conv2d/winograd/convolution.h"
#include "ops/conv2d/winograd/gradient.h"

namespace mixpl::cpu::winograd {

const Kernels& avx512_kernels() {
  static constexpr Kernels kernels{forward, backward_data, backward_weight, kGroupTiles};
  return kernels;
}

}  // namespace mixpl::cpu::winograd
#endif
