// The second stage: features of regions, and a head that classifies and refines them. Names as
// mmdetection's ConvFCBBoxHead.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "detect/sampled_targets.h"
#include "models/detector.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "ops/roi_align/roi_align.h"

namespace mixpl {

/// Which pyramid level a region is taken from, and how.
struct RegionFeatures {
  RoiAlignOptions align;
  bool torchvision = false;  // rule of the level, and scales as powers of two
  std::vector<double> strides{4, 8, 16, 32};

  /// Level of a box by its side: finest scale 56 pixels (mmdetection), 224 on P4 (torchvision).
  int level_of(const Box& box) const;
  /// @param levels of the pyramid; those beyond `strides` are not used
  /// @return [R, size, size, C]
  Tensor operator()(const std::vector<Tensor>& levels, const std::vector<Box>& boxes,
                    const std::vector<int32_t>& image) const;
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

  /// features [R, size, size, in]
  BoxOutputs operator()(const Tensor& features) const;
  /// Cross-entropy and box loss, both over the number of regions; `truth` per image f32 [G, 4].
  std::pair<Tensor, Tensor> loss(const BoxOutputs& out, const RegionTargets& regions,
                                 const std::vector<Tensor>& truth) const;
  /// A region's box for a class.
  Box decode(const BoxOutputs& out, int64_t region, int64_t label, const Box& box) const;

 private:
  BoxHeadOptions options_;
  std::vector<ConvNorm> convs_;
  std::vector<Linear> fcs_;
  Linear cls_, reg_;
};

struct RoiTestOptions {
  float score_thr = 0.05f;
  float nms_iou = 0.5f;
  int64_t max_per_image = 100;
  float min_size = -1;  // >= 0: sides must reach it (torchvision)

  /// { scoreThr, nmsIou, maxPerImage } of "test". @throws ConfigError
  static RoiTestOptions read(const Options& options, const RoiTestOptions& defaults);
};

/// Softmax scores, boxes of every class, class-wise NMS.
/// @param logits f32 [R, C + 1]: a mean over stages where there are several
std::vector<Detections> detect_regions(const BoxHead& head, const BoxOutputs& out,
                                       const Tensor& logits, const std::vector<Box>& boxes,
                                       const std::vector<int32_t>& image, const ImageBatch& images,
                                       const RoiTestOptions& options);

/// Proposals of all images in one list.
struct RegionList {
  std::vector<Box> boxes;
  std::vector<int32_t> image;
};
RegionList join(const std::vector<std::vector<Box>>& proposals);

}  // namespace mixpl
