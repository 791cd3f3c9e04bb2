#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Layer normalisation over the last axis, of x or of x + residual:
/// y = (s - mean) / sqrt(variance + eps) * gamma + beta, s = x (+ residual), variance biased.
///
/// @param x        f32|bf16 [..., C]
/// @param gamma    f32 [C]
/// @param beta     f32 [C]
/// @param eps      > 0
/// @param residual x's shape and dtype, or undefined; the sum is not rounded before it is normalised
/// @return         x's shape and dtype; statistics in f32, from squared distances to the mean
/// @grad           x and residual (their dtype, one tensor for both), gamma and beta (f32); same
///                 bits on every run and for any thread count
/// @throws         ShapeError, DTypeError, DeviceError, RangeError
/// @source         Ba et al. 2016, arXiv:1607.06450; as torch.nn.functional.layer_norm
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps = 1e-5f,
                  const Tensor& residual = {});

}  // namespace mixpl
