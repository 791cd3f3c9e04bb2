#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

/// Greedy non-maximum suppression within each class: boxes by falling score (ties: lower index
/// first, NaN last), a box goes when its IoU with a kept box of its class exceeds `iou_thr`. The
/// result is the same for any number of threads.
///
/// @param labels one per box, any integers, or empty: all of one class
/// @param most   keep at most this many boxes, the best of all classes; < 0: no limit
/// @return       indices of the kept boxes, best first
/// @source       torchvision nms, batched_nms
std::vector<int32_t> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                         const std::vector<int32_t>& labels, float iou_thr, int64_t most = -1);

/// The same of tensors on either device; on a GPU the host waits for the number of boxes.
/// @param boxes f32 [B, 4]; scores f32 [B]; labels i32 [B] or undefined: all of one class
/// @return      i32 [kept]
/// @throws      ShapeError, DTypeError, DeviceError, RangeError
Tensor nms(const Tensor& boxes, const Tensor& scores, const Tensor& labels, float iou_thr,
           int64_t most = -1);

namespace cpu {
Tensor nms_indices(const Tensor& boxes, const Tensor& scores, const Tensor& labels, float iou_thr,
                   int64_t most);
}  // namespace cpu
namespace cuda {
Tensor nms_indices(const Tensor& boxes, const Tensor& scores, const Tensor& labels, float iou_thr,
                   int64_t most);
}  // namespace cuda

}  // namespace mixpl
