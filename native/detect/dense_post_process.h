// From a dense head's outputs to detections (mmdetection's filter_scores_and_topk and
// bbox_post_process).
#pragma once

#include <array>
#include <vector>

#include "core/tensor.h"
#include "detect/box_coder.h"

namespace mixpl {

/// Detections of one image, best first; boxes in network-input pixels.
struct Detections {
  std::vector<float> boxes;  // [4 n] xyxy
  std::vector<float> scores;
  std::vector<int32_t> labels;
};

struct DensePostProcessOptions {
  float score_thr = 0.05f;
  int64_t nms_pre = 1000;  // (box, class) pairs a level
  float nms_iou = 0.5f;
  int64_t max_per_image = 100;
  float min_size = 0;  // boxes must be wider and higher than this

  /// @throws ConfigError
  void validate() const;
};

/// Per level: pairs with sigmoid(logit) > score_thr, the nms_pre best of them, decoded and clipped;
/// then over all levels: boxes no larger than min_size dropped, class-wise NMS, the max_per_image
/// best. Equal scores are taken by rising level, anchor, class. A NaN is no
/// detection.
///
/// @param logits  per level f32|bf16 [N, H, W, A K]
/// @param deltas  per level f32|bf16 [N, H, W, 4 A]
/// @param anchors per level f32 [H W A, 4]
/// @param sizes   per image height and width in the network input, for clipping
/// @param classes K
/// @return        per image; the same for any number of threads
/// @throws        ShapeError, DTypeError
std::vector<Detections> dense_post_process(const std::vector<Tensor>& logits,
                                           const std::vector<Tensor>& deltas,
                                           const std::vector<Tensor>& anchors,
                                           const std::vector<std::array<float, 2>>& sizes,
                                           int64_t classes, const DeltaCoder& coder,
                                           const DensePostProcessOptions& options);

}  // namespace mixpl
