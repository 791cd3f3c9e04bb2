#pragma once

#include <cstdint>
#include <vector>

#include "detect/box_math.h"

namespace mixpl {

/// Greedy non-maximum suppression within each class: boxes by falling score (ties: lower index
/// first, NaN last), a box goes when its IoU with a kept box of its class exceeds `iou_thr`. The
/// result is the same for any number of threads.
///
/// @param labels one a box, any integers, or empty: all of one class
/// @param most   keep at most this many boxes, the best of all classes; < 0: no limit
/// @return       indices of the kept boxes, best first
/// @source       torchvision nms, batched_nms
std::vector<int32_t> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                         const std::vector<int32_t>& labels, float iou_thr, int64_t most = -1);

}  // namespace mixpl
