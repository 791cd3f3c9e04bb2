#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Weighted box regression loss, summed: w |d| for |d| >= beta, less beta / 2; w d^2 / (2 beta)
/// below; d = pred - target.
///
/// @param pred   f32|bf16, B boxes of 4 numbers in any shape, e.g. [B, 4] or [N, H, W, A * 4]
/// @param target f32, as many numbers in the same order
/// @param weight f32, one number a box; 0 leaves a box out, whatever it holds
/// @param beta   >= 0, where the parabola ends; 0 is plain L1
/// @return       f32 []; a sum: the caller picks the normaliser
/// @grad         pred, in its dtype; 0 at d = 0
/// @throws       ShapeError, DTypeError, DeviceError, RangeError
/// @source       Girshick 2015, arXiv:1504.08083, eq. 3; as torch.nn.functional.smooth_l1_loss
Tensor smooth_l1_loss(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      float beta = 0);

namespace cpu {
void smooth_l1_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                            float beta, Tensor& loss);
void smooth_l1_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                             const Tensor& weight, float beta, Tensor& dpred);
}  // namespace cpu
namespace cuda {
void smooth_l1_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                            float beta, Tensor& loss);
void smooth_l1_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                             const Tensor& weight, float beta, Tensor& dpred);
}  // namespace cuda

}  // namespace mixpl
