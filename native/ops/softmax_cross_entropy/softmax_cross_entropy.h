#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Softmax cross-entropy over the last axis, summed: ln sum_j e^x_j - x_label.
///
/// @param logits f32|bf16 [..., C]
/// @param labels i32, one a row: 0 … C-1; a negative one leaves its row out, whatever it holds;
///               others are the caller's mistake, which the named op "softmaxCrossEntropy" checks
/// @return       f32 [], nats; a sum: the caller picks the normaliser
/// @grad         logits, in their dtype: softmax(x) - onehot(label)
/// @throws       ShapeError, DTypeError, DeviceError, RangeError
/// @source       as torch.nn.functional.cross_entropy
Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels);

namespace cpu {
/// A label that is not below classes, or -1 when there is none.
int64_t softmax_cross_entropy_bad_label(const Tensor& labels, int64_t classes);
void softmax_cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& loss);
void softmax_cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                    Tensor& dlogits);
}  // namespace cpu
namespace cuda {
int64_t softmax_cross_entropy_bad_label(const Tensor& labels, int64_t classes);
void softmax_cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& loss);
void softmax_cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                    Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
