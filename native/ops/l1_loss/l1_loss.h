#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Smooth L1 of box offsets, summed: w (d < beta ? d^2 / (2 beta) : d - beta / 2), d = |pred -
/// target|.
///
/// @param pred   f32|bf16, 4 numbers a box, e.g. [N, H, W, 4 A]
/// @param target f32, as many numbers
/// @param weight f32, one a box; boxes of weight 0 are skipped whatever they hold
/// @param beta   >= 0; 0 is plain L1
/// @return       f32 []
/// @grad         pred, in its dtype
/// @throws       ShapeError, DTypeError, RangeError
Tensor smooth_l1_loss(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      float beta = 0);

namespace cpu {
/// dpred may be undefined: then only the loss is made.
void smooth_l1_forward(const Tensor& pred, const Tensor& target, const Tensor& weight, float beta,
                       Tensor& loss, Tensor& dpred);
}  // namespace cpu

}  // namespace mixpl
