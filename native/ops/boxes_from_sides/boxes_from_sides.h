#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Boxes around the origin from distances to their sides: (l, t, r, b) -> (-l, -t, r, b). Overlap
/// losses do not depend on where a pair of boxes lies, so this is all that they need of a point.
///
/// @param sides f32|bf16, B times 4 numbers in any shape, e.g. [N, H, W, 4]
/// @return      f32 [B, 4] xyxy
/// @grad        sides, in their dtype
/// @throws      ShapeError, DTypeError
Tensor boxes_from_sides(const Tensor& sides);

namespace cpu {
void boxes_from_sides_forward(const Tensor& sides, Tensor& boxes);
void boxes_from_sides_backward(const Tensor& dboxes, Tensor& dsides);
}  // namespace cpu
namespace cuda {
void boxes_from_sides_forward(const Tensor& sides, Tensor& boxes);
void boxes_from_sides_backward(const Tensor& dboxes, Tensor& dsides);
}  // namespace cuda

}  // namespace mixpl
