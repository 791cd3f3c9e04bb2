#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/truth.h"

namespace mixpl {

/// What low-quality matching does with the anchors that tie a box's best IoU.
enum class LowQuality : uint8_t {
  overwrite,    // they become the box's, boxes in order, later ones win (mmdetection)
  restore_best  // each gets back its own best box, whatever the thresholds (torchvision)
};

struct MaxIouOptions {
  float pos_iou = 0.5f, neg_iou = 0.4f;
  float min_pos_iou = 0.0f;  // least best IoU of a box for low-quality matching; overwrite only
  bool match_low_quality = true;
  LowQuality low_quality = LowQuality::overwrite;

  /// @throws ConfigError
  void validate() const;
};

constexpr int32_t kNegative = -1, kIgnored = -2;

/// Per image and anchor: the ground-truth box of that image it answers for (>= 0), kNegative, or
/// kIgnored. An anchor takes its best box (the first on ties): positive from pos_iou on, negative
/// below neg_iou, ignored in between. Then low-quality matching: for each box (whose best IoU
/// reaches min_pos_iou) all anchors that tie its best IoU are matched as `low_quality` says,
/// whatever they were. A box that touches no anchor ties with every anchor at 0, as in the
/// references. No boxes: all negative.
///
/// @param anchors f32 [A, 4], the same for every image, or [N, A, 4]
/// @param truth   boxes are finite
/// @param valid   u8 [N, A], undefined = all; invalid anchors (0) take no part and are kIgnored
/// @return        i32 [N, A]; no A x G matrix is kept
/// @throws        ShapeError, DTypeError, DeviceError
/// @source        mmdetection MaxIoUAssigner (gt_max_assign_all); torchvision Matcher
Tensor assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                      const MaxIouOptions& options);
/// The same for one image, on the host.
/// @param boxes f32 [G, 4]; valid of each anchor, empty = all
std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid,
                                    const MaxIouOptions& options);

namespace cpu {
void assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                    const MaxIouOptions& options, Tensor& assigned);
}  // namespace cpu
namespace cuda {
void assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                    const MaxIouOptions& options, Tensor& assigned);
}  // namespace cuda

/// What an anchor of a best IoU becomes before low-quality matching.
MIXPL_HD int32_t assignment_of(float best, int32_t best_box, const MaxIouOptions& o) {
  return best < o.neg_iou ? kNegative : best < o.pos_iou ? kIgnored : best_box;
}

/// The label that an anchor learns.
/// @param labels of its image's boxes
MIXPL_HD int32_t label_of(int32_t assigned, const int32_t* labels, int32_t classes) {
  return assigned >= 0 ? labels[assigned] : assigned == kIgnored ? -1 : classes;
}

}  // namespace mixpl
