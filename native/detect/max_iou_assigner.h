#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace mixpl {

struct MaxIouOptions {
  float pos_iou = 0.5f, neg_iou = 0.4f, min_pos_iou = 0.0f;
  bool match_low_quality = true;
};

constexpr int32_t kNegative = -1, kIgnored = -2;

/// Per anchor: the ground-truth box it answers for (>= 0), kNegative, or kIgnored.
/// An anchor takes its best box (the first on ties): positive from pos_iou on, negative below
/// neg_iou, ignored in between. Then, for each box in order whose best IoU reaches min_pos_iou, all
/// anchors that tie that best IoU become its, whatever they were. No boxes: all negative.
///
/// @param anchors f32 [A, 4]; boxes f32 [G, 4]
/// @param valid   per anchor, empty = all; invalid anchors take no part and are kIgnored
/// @source        mmdetection MaxIoUAssigner (gt_max_assign_all)
std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid,
                                    const MaxIouOptions& options);

}  // namespace mixpl
