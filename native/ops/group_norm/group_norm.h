// Group normalisation (Wu and He 2018) with what usually follows it.
#pragma once

#include "core/tensor.h"

namespace mixpl {

struct GroupNormOptions {
  int groups = 32;
  float eps = 1e-5f;
  bool relu = false;
};

/// relu?(gamma * (x - mean) / sqrt(var + eps) + beta + residual), mean and biased variance per
/// image and group of C / groups channels.
///
/// @param x        f32|bf16 [N, H, W, C]; groups must divide C
/// @param gamma, beta f32 [C]
/// @param residual x's dtype and shape, or undefined
/// @return         [N, H, W, C] in x's dtype; statistics in f32
/// @grad           x, residual (x's dtype), gamma, beta (f32)
/// @throws         ShapeError, DTypeError, RangeError
Tensor group_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  const GroupNormOptions& options = {}, const Tensor& residual = {});

namespace cpu {
/// stats: f32 [N, groups, 2], mean and 1 / sqrt(var + eps)
void group_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                        const Tensor& residual, const GroupNormOptions& options, Tensor& y,
                        Tensor& stats);
void group_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma,
                         const Tensor& stats, const GroupNormOptions& options, Tensor& dx,
                         Tensor& dgamma, Tensor& dbeta);
}  // namespace cpu

}  // namespace mixpl
