// Batched products on the CPU as the instruction sets offer them; see batched_matmul.h for what
// they do.
#pragma once

#include "ops/batched_matmul/batched_matmul.h"

namespace mixpl::cpu::batched_matmul {

using Product = void (*)(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);

/// f32 alone.
void avx512_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);
/// bf16 alone, two terms at a time.
void avx512_pairs_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);
void avx2_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);
/// For processors without either.
void portable_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);

}  // namespace mixpl::cpu::batched_matmul
