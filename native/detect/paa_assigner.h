#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/box_coder.h"
#include "ops/focal_loss/focal_loss.h"

namespace mixpl {

/// What a head's outputs at an anchor cost as the box that the anchor was assigned to: focal
/// loss over all classes + box_weight GIoU loss of the decoded box.
///
/// @param logits   f32|bf16 [N, H, W, A C], deltas [N, H, W, A 4], of one level
/// @param anchors  f32 [A_l, 4]; boxes f32 [G, 4]; labels i32 [G], 0 … C-1
/// @param assigned of this level's anchors: a box, or < 0
/// @param costs    [A_l], written where there is a box
/// @source         mmdetection PAAHead.get_pos_loss
void paa_costs(const Tensor& logits, const Tensor& deltas, int64_t image, const Tensor& anchors,
               const Tensor& boxes, const Tensor& labels, int64_t classes, const int32_t* assigned,
               const DeltaCoder& coder, const FocalLossOptions& focal, float box_weight,
               float* costs);

/// How many of rising losses belong to the better part: a mixture of two Gaussians is fitted to
/// them (expectation maximisation from the means `least loss` and `largest loss`, weights 1/2 and
/// precisions 1; until the mean log-likelihood changes by less than 1e-3, 100 rounds at most; 1e-6
/// is added to variances). Those whose likelier component is the first are taken in rising order,
/// up to the one of largest density under the mixture (the first on ties).
///
/// @param losses rising, finite, at least 2
/// @return       their places in `losses`
/// @source       Kim and Lee 2020, arXiv:2007.08103; mmdetection PAAHead.gmm_separation_scheme;
///               scikit-learn GaussianMixture (which computes f32 losses in f32, this in f64)
std::vector<int32_t> better_part(const std::vector<double>& losses);

/// Probabilistic anchor assignment, second step: of each box's anchors the top_k of least loss on
/// every level (the lower index on ties) are candidates, of whose losses better_part picks; what is
/// not picked becomes kNegative. A box with less than two candidates keeps none. An anchor whose
/// loss is not finite is no candidate.
///
/// @param level_sizes anchors of each level
/// @param assigned    of all levels in a row: a box below `boxes`, kNegative or kIgnored
/// @param losses      as many; looked at where there is a box
/// @return            the same for any number of threads
/// @source            mmdetection PAAHead.paa_reassign
std::vector<int32_t> select_paa(const std::vector<int64_t>& level_sizes,
                                const std::vector<int32_t>& assigned,
                                const std::vector<float>& losses, int64_t boxes, int64_t top_k);

}  // namespace mixpl
