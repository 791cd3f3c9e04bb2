#include "core/avx512.h"
#include "ops/batched_matmul/batched_matmul_kernels.h"

namespace mixpl::cpu {
namespace {

batched_matmul::Product product_of(DType dtype) {
#if defined(__x86_64__)
  if (dtype == DType::bf16 && has_avx512_bf16()) return batched_matmul::avx512_pairs_product;
  if (dtype == DType::f32 && has_avx512()) return batched_matmul::avx512_product;
  return batched_matmul::avx2_product;
#else
  return batched_matmul::portable_product;
#endif
}

}  // namespace

void batched_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  product_of(y.dtype())(left, right, y);
}

}  // namespace mixpl::cpu
