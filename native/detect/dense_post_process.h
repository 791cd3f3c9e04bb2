// From a dense head's outputs to detections (mmdetection's filter_scores_and_topk and
// bbox_post_process).
#pragma once

#include <vector>

#include "core/options.h"
#include "core/tensor.h"
#include "detect/box_decoder.h"
#include "detect/dense_scores.h"
#include "detect/detections.h"

namespace mixpl {

/// What a head says of one pyramid level.
struct DenseLevel {
  Tensor logits;   // f32|bf16 [N, H, W, A K], or as many numbers in another shape
  Tensor quality;  // logits f32|bf16 [N, H, W, A]; undefined where the rule needs none
  BoxDecoder boxes;
  int64_t anchors() const { return boxes.count; }  // H W A
};

struct DensePostProcessOptions {
  ScoreRule score_rule = ScoreRule::classes;
  float score_thr = 0.05f;
  int64_t nms_pre = 1000;   // (box, class) pairs a level
  bool per_anchor = false;  // nms_pre counts anchors, ranked by their best class, instead of pairs
  bool vote = false;        // vote_boxes after suppression, by all candidates
  float nms_iou = 0.5f;
  int64_t max_per_image = 100;
  float min_size = 0;  // boxes must be wider and higher than this; < 0: all are taken

  /// { scoreThr, nmsPre, nmsIou, maxPerImage } of "test". @throws ConfigError
  static DensePostProcessOptions read(const Options& options,
                                      const DensePostProcessOptions& defaults);
  /// @throws ConfigError
  void validate() const;
};

/// Per level: (anchor, class) pairs with a score above score_thr, the nms_pre best of them, decoded
/// and clipped; then over all levels: boxes no larger than min_size dropped, class-wise NMS, the
/// max_per_image best. Equal scores are taken by rising level, anchor, class. A NaN is no
/// detection.
///
/// @param sizes   f32 [N, 2], see ImageSize; boxes are clipped to them
/// @param classes K
/// @return        per image; the same for any number of threads
/// @throws        ShapeError, DTypeError
PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& options);

/// What loops and kernels read the scores of a level from.
DenseScores scores_of(const DenseLevel& level, int64_t classes,
                      const DensePostProcessOptions& options);

namespace cpu {
PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& options);
}  // namespace cpu
namespace cuda {
/// Ends with the start of the one copy that brings the detections to the host.
PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& options);
}  // namespace cuda

}  // namespace mixpl
