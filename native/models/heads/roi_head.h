// The second stage: features of regions, and a head that classifies and refines them. Names as
// mmdetection's ConvFCBBoxHead.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "detect/region_detections.h"
#include "detect/sampled_targets.h"
#include "models/detector.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "ops/roi_align/roi_align.h"

namespace mixpl {

/// Which pyramid levels regions are taken from, and how.
struct RegionFeatures {
  RoiAlignOptions align;
  bool torchvision = false;  // rule of the level, and scales as powers of two
  std::vector<double> strides{4, 8, 16, 32};

  /// @param levels of the pyramid; those beyond `strides` are not used
  /// @return [R, size, size, C]
  Tensor operator()(const std::vector<Tensor>& levels, const Regions& regions) const;
};

struct BoxHeadOptions {
  int64_t classes = 0;
  int64_t in = 256;  // channels of the pyramid
  int size = 7;      // bins per side
  int convs = 0;     // 3x3, before the fully connected layers
  int64_t conv_channels = 256;
  NormKind norm = NormKind::none;  // of the convolutions: none, bn or gn
  int fcs = 2;
  int64_t fc_channels = 1024;
  bool class_agnostic = false;  // one box a region instead of one a class
  DeltaCoder coder;
  float smooth_l1_beta = 0;

  /// @throws ConfigError
  void validate() const;
};

/// logits [R, C + 1], background last; deltas [R, 4 C] or [R, 4].
struct BoxOutputs {
  Tensor logits, deltas;
};

/// Parameters: shared_convs.<i>.conv.{weight, bias} and .{bn, gn}.*, shared_fcs.<i>, fc_cls,
/// fc_reg.
class BoxHead {
 public:
  BoxHead() = default;
  BoxHead(const Scope& scope, const BoxHeadOptions& options);

  /// @param features [R, size, size, in] of the regions
  BoxOutputs operator()(const Tensor& features, const Regions& regions) const;
  /// Cross-entropy and box loss, both over the number of regions.
  std::pair<Tensor, Tensor> loss(const BoxOutputs& out, const RegionTargets& targets) const;
  /// The boxes that it says regions have.
  RegionDecoder decoder(const BoxOutputs& out) const { return {out.deltas, options_.coder}; }

 private:
  BoxHeadOptions options_;
  std::vector<ConvNorm> convs_;
  std::vector<Linear> fcs_;
  Linear cls_, reg_;
};

}  // namespace mixpl
