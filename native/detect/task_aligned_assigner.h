#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

struct TaskAlignedOptions {
  int64_t top = 13;           // candidates of a box
  float alpha = 1, beta = 6;  // exponents of score and IoU

  /// @throws ConfigError
  void validate() const;
};

/// What a head says of its anchors, per level; A_l = anchors of level l.
struct AlignedOutputs {
  std::vector<Tensor> scores;  // f32, N A_l rows of K probabilities, e.g. [N, H, W, K]
  std::vector<Tensor> boxes;   // f32 [N A_l, 4] xyxy
  std::vector<double> units;   // pixels that boxes are measured in
};

struct TaskAlignment {
  Tensor assigned;              // i32 [N, A]: a box of the image, kNegative or kIgnored
  std::vector<Tensor> quality;  // per level f32 [N, A_l]: soft target in [0, 1], 0 without a box
};

/// Task-aligned assignment. A predicted box and its score s for a ground-truth box's class fit that
/// box by t = s^alpha IoU^beta; a ground-truth box takes its `top` best (by rising index on ties)
/// with t > 0 whose anchor's centre lies inside it by more than 0.01 pixels. An anchor that several
/// take goes to the one with the largest IoU (the first on ties). The quality of an anchor is t /
/// (largest t of its box + 1e-7) times the largest IoU of its box, both over the anchors that the
/// box has in the end.
///
/// @param truth labels in 0 ... K-1
/// @param valid u8 [N, A], undefined = all; invalid anchors (0) take no part and are kIgnored
/// @throws      ShapeError, DTypeError, DeviceError
/// @source      TOOD (Feng et al. 2021), section 3.2; mmdetection TaskAlignedAssigner and
///              TOODHead._get_targets_single
TaskAlignment assign_task_aligned(const AlignedOutputs& out, const Anchors& anchors,
                                  const Truth& truth, const Tensor& valid,
                                  const TaskAlignedOptions& options);

/// What loops and kernels see.
struct AlignView {
  Pyramid pyramid;
  const Box* anchors;
  const uint8_t* valid;  // null: all
  TruthView truth;
  PerLevel<const float> scores;
  PerLevel<const Box> predicted;
  float unit[kMostLevels];
  int64_t images, classes;
  TaskAlignedOptions options;
  int32_t* assigned;
  PerLevel<float> quality;

  struct Fit {
    float fit, iou;  // 0 when the anchor is none of the box's candidates
  };
  /// Of a place and a box, of all in a row.
  MIXPL_HD Fit fit_of(const Place& p, int32_t box) const {
    if (!is_valid(p)) return {0, 0};
    const float by = unit[p.level];
    const Box b = predicted[p.level][p.at];
    const float iou = box_iou({b.x1 * by, b.y1 * by, b.x2 * by, b.y2 * by}, truth.boxes[box]);
    if (!(iou > 0)) return {0, 0};
    const float score = scores[p.level][p.at * classes + truth.labels[box]];
    const float fit = power(score, options.alpha) * power(iou, options.beta);
    return fit > 0 ? Fit{fit, iou} : Fit{0, 0};
  }
  MIXPL_HD bool is_valid(const Place& p) const {
    return !valid || valid[p.image * pyramid.count() + p.in_row];
  }
  MIXPL_HD static float power(float x, float n) { return n == 1.0f ? x : powf(x, n); }
  MIXPL_HD static float quality_of(Fit own, float most_fit, float most_iou) {
    return own.fit / (most_fit + 1e-7f) * most_iou;
  }
};

namespace cpu {
/// @param boxes of all images
void assign_task_aligned(const AlignView& view, int64_t boxes);
}  // namespace cpu
namespace cuda {
void assign_task_aligned(const AlignView& view, int64_t boxes);
}  // namespace cuda

}  // namespace mixpl
