// From a dense head's outputs to detections (mmdetection's filter_scores_and_topk and
// bbox_post_process).
#pragma once

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
};

/// Per level: pairs with sigmoid(logit) > score_thr, the nms_pre best of them, decoded and clipped;
/// then over all levels: boxes without area dropped, class-wise NMS, the max_per_image best.
///
/// @param logits  per level f32|bf16 [N, H, W, A K]
/// @param deltas  per level f32|bf16 [N, H, W, 4 A]
/// @param anchors per level f32 [H W A, 4]
/// @param image   which of the N
/// @param height, width of the image in the network input, for clipping
Detections dense_post_process(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                              const std::vector<Tensor>& anchors, int64_t image, int64_t classes,
                              float height, float width, const DeltaCoder& coder,
                              const DensePostProcessOptions& options);

}  // namespace mixpl
