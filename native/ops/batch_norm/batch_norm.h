// Live batch normalisation (Ioffe and Szegedy 2015) with what usually follows it.
#pragma once

#include "core/tensor.h"

namespace mixpl {

struct BatchNormOptions {
  float eps = 1e-5f;
  float momentum = 0.1f;  // share of the batch in the running statistics
  bool relu = false;
};

/// relu?(gamma * (x - mean) / sqrt(var + eps) + beta + residual).
/// In training (Context::training) mean and biased variance are the batch's, and the running ones
/// move towards it (with the unbiased variance); otherwise the running ones are used.
///
/// @param x        f32|bf16 [N, H, W, C]
/// @param gamma, beta, running_mean, running_var f32 [C]; the last two are written in training
/// @param residual x's dtype and shape, or undefined
/// @return         [N, H, W, C] in x's dtype; statistics in f32
/// @grad           x, residual (x's dtype), gamma, beta (f32)
/// @throws         ShapeError, DTypeError, RangeError
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, const BatchNormOptions& options = {},
                  const Tensor& residual = {});

namespace cpu {
/// mean and biased variance per channel of all pixels
void channel_statistics(const Tensor& x, Tensor& mean, Tensor& variance);
/// y = relu?(x * scale + shift + residual), per channel
void channel_affine(const Tensor& x, const Tensor& scale, const Tensor& shift,
                    const Tensor& residual, bool relu, Tensor& y);
/// sums over pixels of dy and of dy (x - mean)
void channel_moments(const Tensor& dy, const Tensor& x, const Tensor& mean, Tensor& sum,
                     Tensor& product);
/// dx = dy * scale + x * slope + offset, per channel
void channel_affine_backward(const Tensor& dy, const Tensor& x, const Tensor& scale,
                             const Tensor& slope, const Tensor& offset, Tensor& dx);
}  // namespace cpu

}  // namespace mixpl
