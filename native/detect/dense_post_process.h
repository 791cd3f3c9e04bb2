// From a dense head's outputs to detections (mmdetection's filter_scores_and_topk and
// bbox_post_process).
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "core/options.h"
#include "core/tensor.h"
#include "detect/box_coder.h"
#include "detect/points.h"

namespace mixpl {

/// Detections of one image, best first; boxes in network-input pixels.
struct Detections {
  std::vector<float> boxes;  // [4 n] xyxy
  std::vector<float> scores;
  std::vector<int32_t> labels;
};

/// What a detection's score is made of.
enum class ScoreRule : uint8_t {
  classes,  // sigmoid(logit)
  product,  // sigmoid(logit) sigmoid(quality), after score_thr and nms_pre took the first alone
  geometric_mean,  // sqrt of that product, before score_thr and nms_pre (torchvision)
  probabilities    // the "logits" are scores already
};

/// What a head says of one pyramid level.
struct DenseLevel {
  Tensor logits;    // f32|bf16 [N, H, W, A K], or as many numbers in another shape
  Tensor quality;   // logits f32|bf16 [N, H, W, A]; undefined where the rule needs none
  int64_t anchors;  // H W A
  std::function<Box(int64_t image, int64_t anchor)> decode;  // called from several threads
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
/// @param sizes   per image height and width in the network input, for clipping
/// @param classes K
/// @return        per image; the same for any number of threads
/// @throws        ShapeError, DTypeError
std::vector<Detections> dense_post_process(const std::vector<DenseLevel>& levels,
                                           const std::vector<std::array<float, 2>>& sizes,
                                           int64_t classes, const DensePostProcessOptions& options);

/// The decoder of a level whose head regresses deltas against anchors.
/// @param deltas f32|bf16 [N, H, W, 4 A]; anchors f32 [H W A, 4]
/// @throws       ShapeError, DTypeError
std::function<Box(int64_t, int64_t)> delta_decoder(const Tensor& deltas, const Tensor& anchors,
                                                   const DeltaCoder& coder, int64_t images);
/// The decoder of a level whose head regresses distances of points to the sides of boxes.
/// @param sides f32|bf16 [N, H, W, 4], in units of the grid
/// @throws      ShapeError, DTypeError
std::function<Box(int64_t, int64_t)> side_decoder(const Tensor& sides, const PointGrid& grid,
                                                  int64_t images);

}  // namespace mixpl
