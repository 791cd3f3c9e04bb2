#pragma once

#include "core/tensor.h"

namespace mixpl {

/// (cx, cy, w, h) in shares of each image -> (x1, y1, x2, y2) in its pixels.
///
/// @param boxes f32 [N, Q, 4]
/// @param sizes f32 [N, 2], height and width: see ImageSize
/// @return      f32 [N, Q, 4] xyxy
/// @grad        boxes
/// @throws      ShapeError, DTypeError, DeviceError
Tensor boxes_from_centers(const Tensor& boxes, const Tensor& sizes);

namespace cpu {
void boxes_from_centers_forward(const Tensor& boxes, const Tensor& sizes, Tensor& corners);
void boxes_from_centers_backward(const Tensor& dcorners, const Tensor& sizes, Tensor& dboxes);
}  // namespace cpu
namespace cuda {
void boxes_from_centers_forward(const Tensor& boxes, const Tensor& sizes, Tensor& corners);
void boxes_from_centers_backward(const Tensor& dcorners, const Tensor& sizes, Tensor& dboxes);
}  // namespace cuda

}  // namespace mixpl
