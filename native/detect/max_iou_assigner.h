#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

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

/// Per anchor: the ground-truth box it answers for (>= 0), kNegative, or kIgnored.
/// An anchor takes its best box (the first on ties): positive from pos_iou on, negative below
/// neg_iou, ignored in between. Then low-quality matching: for each box (whose best IoU reaches
/// min_pos_iou) all anchors that tie its best IoU are matched as `low_quality` says, whatever they
/// were. A box that touches no anchor ties with every anchor at 0, as in the references. No boxes:
/// all negative. Same result for any number of threads; memory O(A + A G / 256).
///
/// @param anchors f32 [A, 4]; boxes f32 [G, 4], finite
/// @param valid   per anchor, empty = all; invalid anchors take no part and are kIgnored
/// @throws        ShapeError, DTypeError
/// @source        mmdetection MaxIoUAssigner (gt_max_assign_all); torchvision Matcher
std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid,
                                    const MaxIouOptions& options);

}  // namespace mixpl
