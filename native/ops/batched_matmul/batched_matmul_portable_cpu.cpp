// Batched products for processors that have no file of their own; compiled everywhere, so that it
// stays whole.
#include "ops/batched_matmul/batched_matmul_kernels.h"

#define MIXPL_VECTOR_LANES 8
#define MIXPL_SIMD
#define MIXPL_SIMD_NAME portable_lanes
#define MIXPL_SIMD_PORTABLE
#include "ops/batched_matmul/batched_matmul_simd.h"

namespace mixpl::cpu::batched_matmul {

void portable_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) { product<decltype(tag)>(left, right, y); });
}

}  // namespace mixpl::cpu::batched_matmul
