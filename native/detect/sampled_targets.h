// What two-stage heads should have said: targets of the anchors or regions that a sampler drew.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/box_coder.h"
#include "detect/max_iou_assigner.h"
#include "detect/random_sampler.h"

namespace mixpl {

/// Per level over all images of a batch, [N, A_l, ...].
struct AnchorTargets {
  std::vector<Tensor> objectness;  // f32: 1 where an anchor has a box
  std::vector<Tensor> sampled;     // f32: 1 where an anchor counts
  std::vector<Tensor> deltas;      // f32 [N, A_l, 4]
  std::vector<Tensor> positive;    // f32: 1 where the deltas count
  int64_t num_sampled = 0;         // of all images, at least 1
};

/// Assigns the anchors of all levels together, image by image, and draws from them.
/// @param anchors per level f32 [A_l, 4]
/// @param boxes   per image f32 [G, 4]
/// @param valid   per image the anchors of all levels in a row, empty = all; may be empty
/// altogether
/// @param random  image n draws from the stream random.stream + n
/// @source        mmdetection RPNHead, torchvision RegionProposalNetwork
AnchorTargets sample_anchor_targets(const std::vector<Tensor>& anchors,
                                    const std::vector<Tensor>& boxes,
                                    const std::vector<std::vector<uint8_t>>& valid,
                                    const DeltaCoder& coder, const MaxIouOptions& assign,
                                    const SamplerOptions& sampler, const Philox& random);

/// The regions of a batch that a box head is trained on.
struct RegionTargets {
  std::vector<Box> boxes;
  std::vector<int32_t> image;
  std::vector<int32_t> labels;    // 0 … C-1, C background
  std::vector<int32_t> truth;     // of positives: which box of the image; else -1
  std::vector<uint8_t> is_truth;  // 1: the region is a ground-truth box itself
  int64_t size() const { return static_cast<int64_t>(boxes.size()); }
};

/// Joins the ground truth to the proposals of each image, assigns, draws.
/// @param proposals per image; boxes per image f32 [G, 4]; labels per image i32 [G]
/// @param random    image n draws from the stream random.stream + n
/// @source          mmdetection MaxIoUAssigner + RandomSampler (add_gt_as_proposals), torchvision
/// RoIHeads
RegionTargets sample_regions(const std::vector<std::vector<Box>>& proposals,
                             const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                             int64_t classes, const MaxIouOptions& assign,
                             const SamplerOptions& sampler, const Philox& random);

}  // namespace mixpl
