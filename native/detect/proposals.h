// What a region proposal network proposes.
#pragma once

#include "detect/regions.h"

namespace mixpl {

/// What a proposal network says of one pyramid level.
struct ProposalLevel {
  Tensor logits;  // f32|bf16 [N, H, W, A]
  BoxDecoder boxes;
  int64_t anchors() const { return boxes.count; }  // H W A
};

struct ProposalOptions {
  int64_t nms_pre = 2000;        // per level
  int64_t max_per_image = 1000;  // after NMS
  float score_thr = 0;           // least score
  float nms_iou = 0.7f;
  float min_size = 0;           // sides must exceed it
  bool may_equal_size = false;  // or reach it (torchvision)
};

/// Per level the nms_pre anchors of highest logit, decoded and clipped, small ones dropped; then
/// NMS within each level, and the max_per_image best of an image. Equal scores are taken by rising
/// level, then by falling logit, then by anchor. An anchor whose logit is NaN proposes nothing. No
/// gradient goes through the boxes.
///
/// @param sizes f32 [N, 2], see ImageSize; boxes are clipped to them
/// @source      mmdetection RPNHead, torchvision RegionProposalNetwork.filter_proposals
Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& options);

namespace cpu {
Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& options);
}  // namespace cpu
namespace cuda {
Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& options);
}  // namespace cuda

/// Whether a proposal is large enough.
MIXPL_HD bool large_enough(Box b, const ProposalOptions& o) {
  const float w = b.x2 - b.x1, h = b.y2 - b.y1, least = o.min_size;
  return o.may_equal_size ? w >= least && h >= least : w > least && h > least;
}

}  // namespace mixpl
