#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

struct TaskAlignedOptions {
  int64_t top = 13;           // candidates of a box
  float alpha = 1, beta = 6;  // exponents of score and IoU

  /// @throws ConfigError
  void validate() const;
};

struct TaskAlignment {
  std::vector<int32_t> assigned;  // per anchor: its box (>= 0), kNegative or kIgnored
  std::vector<float> quality;     // per anchor: soft target in [0, 1], 0 without a box
};

/// Task-aligned assignment of one image. A predicted box and its score s for a ground-truth box's
/// class fit that box by t = s^alpha IoU^beta; a ground-truth box takes its `top` best (by rising
/// index on ties) with t > 0 whose anchor's centre lies inside it by more than 0.01 pixels. An
/// anchor that several take goes to the one with the largest IoU (the first on ties). The quality
/// of an anchor is t / (largest t of its box + 1e-7) times the largest IoU of its box, both over
/// the anchors that the box has in the end.
///
/// @param scores    f32 [A, K], probabilities
/// @param predicted f32 [A, 4] xyxy, pixels
/// @param anchors   f32 [A, 4] xyxy, pixels
/// @param boxes     f32 [G, 4]; labels i32 [G], 0 ... K-1
/// @param valid     per anchor, empty = all; invalid anchors take no part and are kIgnored
/// @return          the same for any number of threads
/// @throws          ShapeError, DTypeError
/// @source          TOOD (Feng et al. 2021), section 3.2; mmdetection TaskAlignedAssigner and
///                  TOODHead._get_targets_single
TaskAlignment assign_task_aligned(const Tensor& scores, const Tensor& predicted,
                                  const Tensor& anchors, const Tensor& boxes, const Tensor& labels,
                                  const std::vector<uint8_t>& valid,
                                  const TaskAlignedOptions& options);

}  // namespace mixpl
