#pragma once

#include "core/tensor.h"

namespace mixpl {

struct FocalLossOptions {
  float alpha = 0.25f, gamma = 2.0f;
};

/// Sigmoid focal loss, summed: -w (1 - p)^gamma log p, p = sigmoid(±logit), w = alpha or 1 - alpha.
///
/// @param logits  f32|bf16 [..., C], classes last; [N, H, W, A * C] with labels [N, H, W, A] is the
/// same
/// @param labels  i32, numel(logits) = numel(labels) * C: 0 ... C-1 object, C background, -1
/// ignored
///                (no loss, no gradient, whatever the logit); others are the caller's mistake,
///                which the named op "sigmoidFocalLoss" checks
/// @param classes C
/// @param options alpha in [0, 1] weighs positives; gamma >= 0, 0 is cross-entropy
/// @param weight  f32 [G], a factor of each of G equal runs of labels (say, one per image);
/// undefined: 1
/// @return        f32 [], nats; a sum: the caller picks the normaliser (usually foreground count)
/// @grad          logits, in their dtype (bf16 is rounded twice); made in the forward pass when a
/// tape
///                is on, which takes 0.7 of the time of computing it again in the backward; same
///                bits on every run and for any thread count
/// @throws        ShapeError, DTypeError, DeviceError, RangeError
/// @source        Lin et al. 2017, arXiv:1708.02002, eq. 5; gradient derived in focal_loss_math.h
Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& labels, int64_t classes,
                          const FocalLossOptions& options = {}, const Tensor& weight = {});

namespace cpu {
/// A label outside [-1, classes], or 0 when there is none.
int64_t focal_loss_bad_label(const Tensor& labels, int64_t classes);
/// Writes dlogits for dloss = 1 too, unless it is undefined.
void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        const FocalLossOptions& options, const Tensor& weight, Tensor& loss,
                        Tensor& dlogits);
/// In place: dlogits *= dloss.
void focal_loss_backward(const Tensor& dloss, Tensor& dlogits);
}  // namespace cpu
namespace cuda {
int64_t focal_loss_bad_label(const Tensor& labels, int64_t classes);
void focal_loss_forward(const Tensor& logits, const Tensor& labels, int64_t classes,
                        const FocalLossOptions& options, const Tensor& weight, Tensor& loss,
                        Tensor& dlogits);
void focal_loss_backward(const Tensor& dloss, Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
