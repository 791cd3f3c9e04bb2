#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Multi-head scaled dot-product attention: softmax(scale q k^T + bias, masked) v, head by head.
///
/// @param q     f32|bf16 [N, Q, M * D], head m has columns m D … (m + 1) D - 1; D >= 1
/// @param k     q's dtype [N, K, M * D]
/// @param v     q's dtype [N, K, M * Dv], Dv >= 1
/// @param heads M
/// @param scale factor of q k^T; <= 0: 1 / sqrt(D)
/// @param bias  f32 [B, M, Q, K], B = 1 or a divisor of N: image n has bias n % B; or undefined
/// @param mask  u8 [B', Q | 1, K], B' a divisor of N: image n has mask n % B'; other than 0: that
/// key
///              is not seen by that query (by any, where the axis is 1); or undefined
/// @return      q's dtype [N, Q, M * Dv]; a query that sees no key, or only such whose score is
/// minus
///              infinity, gets zeros and no gradient. What is no number in a key or value that is
///              masked spoils a query all the same, as 0 x NaN is NaN
/// @grad        q, k, v in their dtype, bias (f32, sum over the images that share it). Scores and
///              sums in f32; a GPU rounds the probabilities of bf16 to bf16 for their product with
///              v. Probabilities are not kept but computed again, from the logarithm of each row's
///              sum: memory grows with Q + K, not with Q K. Same bits on every run and for any
///              thread count
/// @throws      ShapeError, DTypeError, DeviceError, RangeError (M < 1; D or Dv > 128 on a GPU)
/// @source      Vaswani et al. 2017, arXiv:1706.03762; memory: Dao et al. 2022, arXiv:2205.14135
struct AttentionOptions {
  int64_t heads = 8;
  float scale = 0;
};
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                 const Tensor& bias = {}, const Tensor& mask = {});

/// The same of projections that one product left side by side, read where they lie.
///
/// @param packed f32|bf16 [N, Q, 2 M D]: q, then k; with v undefined [N, Q, 3 M D]: q, k, then v
/// @param v      packed's dtype [N, Q, M * Dv], or undefined
/// @grad         packed, v, bias
Tensor packed_attention(const Tensor& packed, const Tensor& v, const AttentionOptions& options,
                        const Tensor& bias = {}, const Tensor& mask = {});

/// Columns of a tensor [N, rows, C], from `column` on.
struct AttentionOperand {
  Tensor tensor;
  int64_t column = 0;

  bool defined() const { return tensor.defined(); }
  int64_t pitch() const { return tensor.size(2); }
  template <typename T>
  T* data() const {
    return tensor.data<T>() + column;
  }
};

/// One call, its arguments checked and none of them empty.
struct AttentionCall {
  int64_t images, queries, keys, heads, depth, value_depth;  // N, Q, K, M, D, Dv
  float scale;
  AttentionOperand q, k, v;
  Tensor bias, mask;
};

/// Those that are wanted; the others are undefined.
struct AttentionGradients {
  AttentionOperand dq, dk, dv;
  Tensor dbias;
};

/// A row's sum of exponentials is taken around its largest score, or around this.
constexpr float kLeastScore = -1e30f;

// log_sums: f32 [N, M, Q], the logarithm of the sum of the exponentials of a row's scores, to e on
// the CPU, to 2 on a GPU, as the device's kernels like it; +infinity where no key is seen.
namespace cpu {
void attention_forward(const AttentionCall& call, Tensor& out, Tensor& log_sums);
void attention_backward(const AttentionCall& call, const Tensor& dout, const Tensor& out,
                        const Tensor& log_sums, AttentionGradients& gradients);
}  // namespace cpu

namespace cuda {
void attention_forward(const AttentionCall& call, Tensor& out, Tensor& log_sums);
void attention_backward(const AttentionCall& call, const Tensor& dout, const Tensor& out,
                        const Tensor& log_sums, AttentionGradients& gradients);
}  // namespace cuda

}  // namespace mixpl
