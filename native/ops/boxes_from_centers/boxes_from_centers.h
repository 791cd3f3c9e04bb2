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

}  // namespace mixpl
