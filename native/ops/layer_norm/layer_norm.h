#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Layer normalisation over the last axis, of x or of x + residual:
/// y = (s - mean) / sqrt(variance + eps) * gamma + beta, s = x (+ residual), variance biased.
///
/// @param x        f32|bf16 [..., C]; a NaN or infinity makes its whole row NaN
/// @param gamma    f32 [C]
/// @param beta     f32 [C]
/// @param eps      > 0
/// @param residual x's shape and dtype, or undefined; the sum is not rounded before it is
/// normalised
/// @return         x's shape and dtype; statistics in f32, from squared distances to the mean; a
/// row
///                 of equal numbers gives beta
/// @grad           x and residual (their dtype, one tensor for both; overwrites the incoming
/// gradient
///                 where it is the only owner), gamma and beta (f32); same bits on every run and
///                 for any thread count
/// @throws         ShapeError, DTypeError, DeviceError, RangeError
/// @source         Ba et al. 2016, arXiv:1607.06450; as torch.nn.functional.layer_norm
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps = 1e-5f,
                  const Tensor& residual = {});

/// One forward pass over rows of C >= 1 channels.
struct LayerNormForward {
  Tensor x, residual;  // f32|bf16 [..., C]; residual may be undefined
  Tensor gamma, beta;  // f32 [C]
  float eps = 1e-5f;
  Tensor mean, rstd;  // f32 [rows], written by the forward pass

  int64_t channels() const { return gamma.numel(); }
  int64_t rows() const { return mean.numel(); }
};

struct LayerNormBackward {
  LayerNormForward forward;
  Tensor dy;             // overwritten when it is dx
  Tensor dx;             // of x and of residual; or undefined
  Tensor dgamma, dbeta;  // f32 [C], both or neither
};

namespace cpu {
void layer_norm_forward(LayerNormForward& norm, Tensor& y);
void layer_norm_backward(LayerNormBackward& norm);
}  // namespace cpu
namespace cuda {
void layer_norm_forward(LayerNormForward& norm, Tensor& y);
void layer_norm_backward(LayerNormBackward& norm);
}  // namespace cuda

}  // namespace mixpl
