// Focal losses of heads whose outputs are probabilities already (TOOD).
#pragma once

#include "core/tensor.h"
#include "ops/focal_loss/focal_loss.h"

namespace mixpl {

/// The sigmoid focal loss with the probabilities in place of the logits, summed:
/// -alpha (1 - p)^gamma ln p of the label's class, -(1 - alpha) p^gamma ln(1 - p) of the others.
/// A probability counts as 1e-37 at least, and 1 - p as 2^-25: what f32 tells apart.
///
/// @param probabilities f32 [..., C], in [0, 1]
/// @param labels        i32, numel(probabilities) = numel(labels) C: 0 ... C-1 object, C
/// background,
///                      -1 ignored (no loss, no gradient)
/// @param classes       C
/// @param options       alpha in [0, 1], gamma >= 0
/// @return              f32 [], nats; a sum: the caller picks the normaliser
/// @grad                probabilities; made in the forward pass when a tape is on; the same bits
///                      for any thread count
/// @throws              ShapeError, DTypeError, DeviceError, RangeError
/// @source              mmdetection FocalLoss(activated=True), whose bounds are those of torch's
///                      binary_cross_entropy: ln >= -100
Tensor prob_focal_loss(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                       const FocalLossOptions& options = {});

/// Quality focal loss of probabilities, summed: |t - p|^beta BCE(p, t) with t the quality for the
/// label's class and 0 for the others; BCE(p, t) = -t ln p - (1 - t) ln(1 - p).
///
/// @param probabilities f32 [..., C], in [0, 1]
/// @param labels        i32, as for prob_focal_loss
/// @param quality       f32, one per label, in [0, 1]: the soft target of an object
/// @param beta          >= 1, or 0
/// @return              f32 [], nats; a sum
/// @grad                probabilities, as for prob_focal_loss
/// @throws              ShapeError, DTypeError, DeviceError, RangeError
/// @source              Li et al. 2020, arXiv:2006.04388, eq. 2; mmdetection
///                      QualityFocalLoss(activated=True)
Tensor prob_quality_focal_loss(const Tensor& probabilities, const Tensor& labels,
                               const Tensor& quality, int64_t classes, float beta = 2.0f);

namespace cpu {
/// Both write dprobabilities for dloss = 1 too, unless it is undefined.
void prob_focal_loss_forward(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                             const FocalLossOptions& options, Tensor& loss, Tensor& dprobabilities);
void prob_quality_focal_loss_forward(const Tensor& probabilities, const Tensor& labels,
                                     const Tensor& quality, int64_t classes, float beta,
                                     Tensor& loss, Tensor& dprobabilities);
}  // namespace cpu
namespace cuda {
void prob_focal_loss_forward(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                             const FocalLossOptions& options, Tensor& loss, Tensor& dprobabilities);
void prob_quality_focal_loss_forward(const Tensor& probabilities, const Tensor& labels,
                                     const Tensor& quality, int64_t classes, float beta,
                                     Tensor& loss, Tensor& dprobabilities);
}  // namespace cuda

}  // namespace mixpl
