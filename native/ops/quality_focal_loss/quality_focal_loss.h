#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Quality focal loss of logits, summed: |t - p|^beta BCE(p, t), p = sigmoid(logit), with t the
/// quality for the label's class and 0 for the others; BCE(p, t) = -t ln p - (1 - t) ln(1 - p).
/// (prob_quality_focal_loss takes probabilities instead.)
///
/// @param logits  f32|bf16 [..., C], classes last; or as many numbers in another shape
/// @param labels  i32, numel(logits) = numel(labels) C: 0 ... C-1 object, C background, -1 ignored
///                (no loss, no gradient, whatever the logit); others are the caller's mistake,
///                which the named op "qualityFocalLoss" checks
/// @param quality f32, one per label, in [0, 1]: the soft target of an object
/// @param classes C
/// @param beta    >= 1, or 0
/// @return        f32 [], nats; a sum: the caller picks the normaliser
/// @grad          logits, in their dtype (bf16 is rounded twice); made in the forward pass when a
///                tape is on; same bits on every run and for any thread count
/// @throws        ShapeError, DTypeError, DeviceError, RangeError
/// @source        Li et al. 2020, arXiv:2006.04388, eq. 2; mmdetection QualityFocalLoss
Tensor quality_focal_loss(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                          int64_t classes, float beta = 2.0f);

namespace cpu {
/// Writes dlogits for dloss = 1 too, unless it is undefined.
void quality_focal_loss_forward(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                                int64_t classes, float beta, Tensor& loss, Tensor& dlogits);
}  // namespace cpu
namespace cuda {
void quality_focal_loss_forward(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                                int64_t classes, float beta, Tensor& loss, Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
