// What two-stage heads should have said: targets of the anchors or regions that a sampler drew.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/box_coder.h"
#include "detect/max_iou_assigner.h"
#include "detect/random_sampler.h"
#include "detect/regions.h"
#include "detect/truth.h"

namespace mixpl {

/// Per level over all images of a batch, [N, A_l, ...].
struct AnchorTargets {
  std::vector<Tensor> objectness;  // f32: 1 where an anchor has a box
  std::vector<Tensor> sampled;     // f32: 1 where an anchor counts
  std::vector<Tensor> deltas;      // f32 [N, A_l, 4]
  std::vector<Tensor> positive;    // f32: 1 where the deltas count
  Tensor num_sampled;              // f32 [1]: counted over all images, at least 1
};

/// Assigns the anchors of all levels together, image by image, and draws from them.
/// @param valid  u8 [N, A], undefined = all
/// @param least  an image's positives count as at least so many in num_sampled, its negatives, too:
///               1 in mmdetection (SamplingResult.avg_factor), 0 in torchvision
/// @param random image n draws from the stream random.stream + n
/// @source       mmdetection RPNHead, torchvision RegionProposalNetwork
AnchorTargets sample_anchor_targets(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                                    const DeltaCoder& coder, const MaxIouOptions& assign,
                                    const SamplerOptions& sampler, int64_t least,
                                    const Philox& random);

/// Valid anchors that do not reach further than `border` pixels over the edge of their image.
/// @param valid u8 [N, A], undefined = all; sizes f32 [N, 2], see ImageSize
/// @return      u8 [N, A]
/// @source      mmdetection anchor_inside_flags
Tensor anchors_inside(const Anchors& anchors, const Tensor& valid, const Tensor& sizes,
                      float border);

/// The regions of a batch that a box head is trained on.
struct RegionTargets {
  Regions regions;     // of an image: positives, then negatives, as the candidates stood
  Tensor labels;       // i32 [R]: 0 … C-1, C background, -1 of an empty place
  Tensor wanted;       // f32 [R, 4]: the box of a positive, else 0
  Tensor is_truth;     // u8 [R]: 1: the region is a ground-truth box itself
  Tensor num_regions;  // f32 [1]: of all images, at least 1
};

/// Joins the ground truth to the proposals of each image, assigns, draws.
/// @param random image n draws from the stream random.stream + n
/// @source       mmdetection MaxIoUAssigner + RandomSampler (add_gt_as_proposals), torchvision
///               RoIHeads
RegionTargets sample_regions(const Regions& proposals, const Truth& truth, int64_t classes,
                             const MaxIouOptions& assign, const SamplerOptions& sampler,
                             const Philox& random);

/// What a box head should regress for its regions.
struct RegionDeltas {
  Tensor deltas;   // f32 [R, E, 4]
  Tensor weights;  // f32 [R, E]: 1 where a region has a box, for its class
};
/// @param each E: boxes that the head regresses for a region, one or one a class
RegionDeltas region_deltas(const RegionTargets& targets, int64_t classes, int64_t each,
                           const DeltaCoder& coder);

}  // namespace mixpl
