#pragma once

#include <cstdint>

#include "core/tensor.h"
#include "detect/anchors.h"
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
/// @param truth boxes are finite
/// @param valid u8 [N, A], undefined = all; invalid anchors (0) take no part and are kIgnored
/// @return      i32 [N, A]: the anchor's box (>= 0), kNegative or kIgnored
/// @throws      ShapeError, DTypeError, DeviceError
/// @source      Zhang et al. 2020, arXiv:1912.02424, algorithm 1; mmdetection ATSSAssigner
Tensor assign_atss(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                   const AtssOptions& options);

/// What loops and kernels see.
struct AtssView {
  Pyramid pyramid;
  const Box* anchors;
  const uint8_t* valid;  // null: all
  TruthView truth;
  int64_t images, top_k;
  int32_t* assigned;

  MIXPL_HD bool is_valid(int64_t image, int64_t i) const {
    return !valid || valid[image * pyramid.count() + i];
  }
  /// Squared distance between the centres.
  MIXPL_HD float distance(int64_t i, const Box& box) const {
    const Point a = centre_of(anchors[i]), c = centre_of(box);
    const float dx = a.x - c.x, dy = a.y - c.y;
    return dx * dx + dy * dy;
  }
};

namespace cpu {
/// @param boxes of all images
void assign_atss(const AtssView& view, int64_t boxes);
}  // namespace cpu
namespace cuda {
void assign_atss(const AtssView& view, int64_t boxes);
}  // namespace cuda

}  // namespace mixpl
