#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Products of matrices, one a batch: y[i] = a[i] b[i].
///
/// @param a f32|bf16 [B, M, K]
/// @param b a's dtype [B, K, N]
/// @return  a's dtype [B, M, N]; zeros where K is 0. Sums in f32, on the CPU in order of K (of bf16
///          by pairs, where the processor multiplies these); on a GPU f32 is exact or, with
///          Context::allow_tf32, of factors of 11 bits
/// @grad    a, b, in their dtype; same bits on every run and for any thread count
/// @throws  ShapeError, DTypeError, DeviceError, RangeError (M, K or N of 2^31 on a GPU)
/// @source  as torch.bmm
Tensor batched_matmul(const Tensor& a, const Tensor& b);

/// One of two factors [B, rows, columns], taken as it is or turned around: [B, columns, rows].
struct BatchedFactor {
  Tensor matrices;
  bool turned = false;

  int64_t rows() const { return matrices.size(turned ? 2 : 1); }
  int64_t columns() const { return matrices.size(turned ? 1 : 2); }
};

// y[i] = left[i] right[i], nothing of it empty. At most one factor is turned.
namespace cpu {
void batched_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);
}  // namespace cpu
namespace cuda {
void batched_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y);
}  // namespace cuda

}  // namespace mixpl
