#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Softmax cross-entropy over the last axis, summed: ln sum_j e^x_j - x_label.
///
/// @param logits f32|bf16 [..., C]
/// @param labels i32, one a row: 0 … C-1; a negative one leaves its row out, whatever it holds
/// @return       f32 [], nats; a sum: the caller picks the normaliser
/// @grad         logits, in their dtype: softmax(x) - onehot(label)
/// @throws       ShapeError, DTypeError, DeviceError; RangeError for a label >= C
/// @source       as torch.nn.functional.cross_entropy
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels);

namespace cpu {
void softmax_cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& loss);
void softmax_cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                    Tensor& dlogits);
}  // namespace cpu

}  // namespace mixpl
