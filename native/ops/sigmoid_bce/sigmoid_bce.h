#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Weighted binary cross-entropy of logits with soft targets, summed:
/// w (max(x, 0) - x t + ln(1 + e^-|x|)).
///
/// @param logits f32|bf16 [...]
/// @param target f32, as many numbers in the same order, in [0, 1]
/// @param weight f32, as many; 0 leaves an entry out, whatever it holds
/// @return       f32 [], nats; a sum: the caller picks the normaliser
/// @grad         logits, in their dtype: w (sigmoid(x) - t)
/// @throws       ShapeError, DTypeError, DeviceError
/// @source       as torch.nn.functional.binary_cross_entropy_with_logits
Tensor sigmoid_bce(const Tensor& logits, const Tensor& target, const Tensor& weight);

namespace cpu {
void sigmoid_bce_forward(const Tensor& logits, const Tensor& target, const Tensor& weight,
                         Tensor& loss);
void sigmoid_bce_backward(const Tensor& dloss, const Tensor& logits, const Tensor& target,
                          const Tensor& weight, Tensor& dlogits);
}  // namespace cpu
namespace cuda {
void sigmoid_bce_forward(const Tensor& logits, const Tensor& target, const Tensor& weight,
                         Tensor& loss);
void sigmoid_bce_backward(const Tensor& dloss, const Tensor& logits, const Tensor& target,
                          const Tensor& weight, Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
