#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// What the anchors of a dense head answer for, when the loss compares decoded boxes; A_l = anchors
/// of level l.
struct BoxTargets {
  std::vector<Tensor> labels;  // per level i32 [N, A_l]: 0 … C-1 object, C background, -1 ignored
  std::vector<Tensor> boxes;   // per level f32 [N, A_l, 4] xyxy; 0 where there is none
  std::vector<Tensor> positive;    // per level f32 [N, A_l]: 1 where an anchor has a box, else 0
  std::vector<int64_t> positives;  // per image

  /// Sum over the images of max(positives, 1), the reference's loss normaliser.
  int64_t average_factor() const;
};

/// Spreads an assignment over the levels.
///
/// @param anchors  per level f32 [A_l, 4]
/// @param boxes    per image f32 [G, 4]; labels per image i32 [G]
/// @param assigned per image and anchor of all levels in a row: a box, kNegative or kIgnored
/// @throws         ShapeError, DTypeError
BoxTargets box_targets(const std::vector<Tensor>& anchors, const std::vector<Tensor>& boxes,
                       const std::vector<Tensor>& labels,
                       const std::vector<std::vector<int32_t>>& assigned, int64_t classes);

/// How central an anchor's centre is in its box: sqrt of the products over both axes of (smaller
/// distance to a side / larger). Per level f32 [N, A_l]; 0 without a box.
/// @source mmdetection ATSSHead.centerness_target
std::vector<Tensor> anchor_centerness(const std::vector<Tensor>& anchors,
                                      const BoxTargets& targets);

/// Sum of all numbers, the same bits for any number of threads; f32 tensors.
double sum_of(const std::vector<Tensor>& tensors);

}  // namespace mixpl
