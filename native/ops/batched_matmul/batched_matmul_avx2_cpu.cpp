// Batched products with AVX2.
#include "ops/batched_matmul/batched_matmul_kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD  // the baseline has it
#define MIXPL_SIMD_NAME avx2
#include "ops/batched_matmul/batched_matmul_simd.h"

namespace mixpl::cpu::batched_matmul {

void avx2_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) { product<decltype(tag)>(left, right, y); });
}

}  // namespace mixpl::cpu::batched_matmul
#endif
