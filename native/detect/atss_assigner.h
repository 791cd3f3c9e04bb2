#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/box_targets.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

struct AtssOptions {
  int64_t top_k = 9;  // candidates a level and box

  /// @throws ConfigError
  void validate() const;
};

/// Adaptive training sample selection. A box's candidates are, on every level, the top_k valid
/// anchors whose centres are nearest to its own (all of them where a level has fewer; ties: the
/// lower index). A candidate is positive when its IoU with the box reaches the candidates' mean
/// plus their sample standard deviation (n - 1; 0 for a single candidate, where the reference has
/// no number and so no positive) and its centre is inside the box by more than 0.01 pixels on all
/// sides. An anchor that several boxes claim goes to the one with the largest IoU (the first on
/// ties). All other valid anchors are negative: a box around no anchor's centre has none.
///
/// @param anchors per level f32 [A_l, 4]
/// @param boxes   f32 [G, 4], finite
/// @param valid   of the anchors of all levels in a row, empty = all; invalid ones take no part and
///                are kIgnored
/// @return        per anchor of all levels in a row its box (>= 0), kNegative or kIgnored; the same
///                for any number of threads
/// @throws        ShapeError, DTypeError
/// @source        Zhang et al. 2020, arXiv:1912.02424, algorithm 1; mmdetection ATSSAssigner
std::vector<int32_t> assign_atss(const std::vector<Tensor>& anchors, const Tensor& boxes,
                                 const std::vector<uint8_t>& valid, const AtssOptions& options);

/// The same for a batch, spread over the levels.
///
/// @param valid  per image, see above; may be empty altogether
/// @param boxes  per image f32 [G, 4]; labels per image i32 [G], 0 … C-1
/// @throws       ShapeError, DTypeError
BoxTargets assign_atss_targets(const std::vector<Tensor>& anchors,
                               const std::vector<std::vector<uint8_t>>& valid,
                               const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                               int64_t classes, const AtssOptions& options);

}  // namespace mixpl
