#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Multi-head scaled dot-product attention: softmax(scale q k^T + bias, masked) v, head by head.
///
/// @param q     f32|bf16 [N, Q, M * D], head m has columns m D … (m + 1) D - 1
/// @param k     q's dtype [N, K, M * D]
/// @param v     q's dtype [N, K, M * Dv]
/// @param heads M
/// @param scale factor of q k^T; <= 0: 1 / sqrt(D)
/// @param bias  f32 [B, M, Q, K], B = 1 or a divisor of N: image n has bias n % B; or undefined
/// @param mask  u8 [B', Q | 1, K], B' a divisor of N: image n has mask n % B'; other than 0: that key
///              is not seen by that query (by any, where the axis is 1); or undefined
/// @return      q's dtype [N, Q, M * Dv]; a query that sees no key gets zeros and no gradient
/// @grad        q, k, v in their dtype, bias (f32, sum over the images that share it). Scores and
///              sums in f32. Probabilities are not kept but computed again, from the logarithm of
///              each row's sum: memory grows with Q + K, not with Q K. Same bits on every run and for
///              any thread count
/// @throws      ShapeError, DTypeError, DeviceError, RangeError
/// @source      Vaswani et al. 2017, arXiv:1706.03762; memory: Dao et al. 2022, arXiv:2205.14135
struct AttentionOptions {
  int64_t heads = 8;
  float scale = 0;
};
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                 const Tensor& bias = {}, const Tensor& mask = {});

}  // namespace mixpl
