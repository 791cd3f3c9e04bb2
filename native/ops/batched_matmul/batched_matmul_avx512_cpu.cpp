// Batched products of f32 with AVX-512; of bf16: batched_matmul_pairs_avx512_cpu.cpp.
#include "ops/batched_matmul/batched_matmul_kernels.h"

#if defined(__x86_64__)
#include "core/avx512.h"

#define MIXPL_VECTOR_LANES 16
#define MIXPL_SIMD MIXPL_AVX512_BF16
#define MIXPL_SIMD_NAME avx512
#include "ops/batched_matmul/batched_matmul_simd.h"

namespace mixpl::cpu::batched_matmul {

void avx512_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  product<float>(left, right, y);
}

}  // namespace mixpl::cpu::batched_matmul
#endif
