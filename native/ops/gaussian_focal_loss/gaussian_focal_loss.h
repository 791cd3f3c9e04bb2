#pragma once

#include "core/tensor.h"

namespace mixpl {

struct GaussianFocalLossOptions {
  float alpha = 2.0f;             // exponent of the wrong probability
  float gamma = 4.0f;             // exponent of 1 - heat, for negatives
  float positive_weight = 0.25f;  // of the positives' part
  float negative_weight = 0.75f;  // of the negatives' part
  float clamp = 1e-4f;            // probabilities are held in [clamp, 1 - clamp]
};

/// Focal loss against a heat map, summed. With p = sigmoid(logit), held in [clamp, 1 - clamp]:
/// negative_weight p^alpha (1 - heat)^gamma (-ln(1 - p)) over all logits, and for every positive
/// positive_weight (1 - p)^alpha (-ln p) on top. Heat does not decide what is positive.
///
/// @param logits    f32|bf16 [..., C]
/// @param heat      f32, as many numbers in the same order, in [0, 1]
/// @param positives i32 [P, 2]: row (of the logits as [rows, C]) and class; one given twice counts
///                  twice, one whose row is -1 not at all (a list made on a GPU has gaps). Others
///                  are the caller's mistake, which the named op checks
/// @param options   alpha, gamma, weights >= 0; clamp in [1e-7, 0.5]
/// @return          f32 [], nats; a sum: the caller picks the normaliser
/// @grad            logits, in their dtype; 0 where the probability was held; made in the forward
///                  pass when a tape is on; the same bits for any thread count
/// @throws          ShapeError, DTypeError, DeviceError, RangeError
/// @source          Zhou et al. 2021, arXiv:2103.07461 (CenterNet2's first stage); mmdetection
///                  gaussian_focal_loss_with_pos_inds, whose 1e-12 inside the logarithms is left
///                  out
Tensor gaussian_focal_loss(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                           const GaussianFocalLossOptions& options = {});

namespace cpu {
/// Index of a pair outside [0, rows) x [0, classes), or -1 when there is none.
int64_t gaussian_focal_bad_positive(const Tensor& positives, int64_t rows, int64_t classes);
/// Writes dlogits for dloss = 1 too, unless it is undefined.
void gaussian_focal_loss_forward(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                                 const GaussianFocalLossOptions& options, Tensor& loss,
                                 Tensor& dlogits);
}  // namespace cpu
namespace cuda {
int64_t gaussian_focal_bad_positive(const Tensor& positives, int64_t rows, int64_t classes);
void gaussian_focal_loss_forward(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                                 const GaussianFocalLossOptions& options, Tensor& loss,
                                 Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
