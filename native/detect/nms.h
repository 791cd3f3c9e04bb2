#pragma once

#include <cstdint>
#include <vector>

#include "detect/box_math.h"

namespace mixpl {

/// Greedy non-maximum suppression within each class: boxes by falling score (ties: lower index
/// first), a box goes when its IoU with a kept box of its class exceeds `iou_thr`.
///
/// @param labels one a box, or empty: all of one class
/// @param most   stop after this many kept boxes; < 0: no limit
/// @return       indices of the kept boxes, best first
std::vector<int32_t> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                         const std::vector<int32_t>& labels, float iou_thr, int64_t most = -1);

}  // namespace mixpl
