// Region proposal network (Ren et al. 2015), names as mmdetection's RPNHead.
#pragma once

#include <utility>
#include <vector>

#include "detect/proposals.h"
#include "detect/sampled_targets.h"
#include "models/detector.h"
#include "nn/conv.h"

namespace mixpl {

struct RpnOptions {
  Numerics numerics = Numerics::mmdetection;
  int64_t channels = 256;
  int convs = 1;  // 3x3, before the outputs
  AnchorOptions anchors;
  DeltaCoder coder;
  MaxIouOptions assign;
  SamplerOptions sampler;
  float allowed_border = -1;  // >= 0: anchors further outside the picture take no part in training
  float smooth_l1_beta = 0;
  ProposalOptions train, test{1000, 1000};

  RpnOptions() {
    anchors.strides = {4, 8, 16, 32, 64};
    anchors.scales = {8};
    assign.pos_iou = 0.7f;
    assign.neg_iou = assign.min_pos_iou = 0.3f;
  }
  /// "rpn" of a two-stage detector. @throws ConfigError
  static RpnOptions read(const Options& options, Numerics numerics, const RpnOptions& defaults);
};

/// Per level: objectness logits [N, H, W, A] and deltas [N, H, W, 4 A].
struct RpnMaps {
  std::vector<Tensor> logits, deltas;
};
/// With the boxes that the deltas move.
struct RpnOutputs : RpnMaps {
  Anchors anchors;
};

class RpnHead {
 public:
  RpnHead(const Scope& scope, int64_t in, const RpnOptions& options);

  /// All pyramids at once. @return what it makes of each
  std::vector<RpnMaps> operator()(const std::vector<FeatureMaps>& pyramids) const;
  /// @param maps of these images
  RpnOutputs with_anchors(const RpnMaps& maps, const ImageBatch& images);
  /// Classification and box loss, both over the number of sampled anchors, see
  /// sample_anchor_targets.
  std::pair<Tensor, Tensor> loss(const RpnOutputs& out, const ImageBatch& images,
                                 const Truth& truth, const Philox& random) const;
  /// See propose_regions.
  Regions propose(const RpnOutputs& out, const ImageBatch& images, bool training) const;

 private:
  Tensor valid_anchors(const RpnOutputs& out, const ImageBatch& images) const;

  RpnOptions options_;
  AnchorGenerator anchors_;
  std::vector<ConvNorm> convs_;
  ConvNorm cls_, reg_;
};

}  // namespace mixpl
