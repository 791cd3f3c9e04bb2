#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Boxes from the distances of each cell's point (column + offset, row + offset) to their sides,
/// in units of a cell: x1 = column + offset - left, ..., y2 = row + offset + bottom.
///
/// @param sides  f32 [N, H, W, 4]: left, top, right, bottom
/// @param offset of the point in its cell
/// @return       f32 [N, H, W, 4], xyxy
/// @grad         sides
/// @throws       ShapeError, DTypeError
Tensor grid_boxes(const Tensor& sides, float offset = 0);

namespace cpu {
void grid_boxes_forward(const Tensor& sides, float offset, Tensor& boxes);
void grid_boxes_backward(const Tensor& dboxes, Tensor& dsides);
}  // namespace cpu
namespace cuda {
void grid_boxes_forward(const Tensor& sides, float offset, Tensor& boxes);
void grid_boxes_backward(const Tensor& dboxes, Tensor& dsides);
}  // namespace cuda

}  // namespace mixpl
