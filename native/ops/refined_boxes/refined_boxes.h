#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Boxes of a head that moves references: sigmoid(deltas + inverse_sigmoid(references)), the inverse
/// being ln(max(r, eps) / max(1 - r, eps)) of r clamped to [0, 1].
///
/// @param deltas     f32|bf16 [N, Q, 4]
/// @param references f32 [N, Q, 4 | 2]; of two numbers (x, y) only these are moved, width and height
///                   are sigmoid(delta)
/// @param eps        > 0: 1e-5 usually, 1e-3 in DINO's decoder. 0: references are logits already,
///                   and may be infinite
/// @return           f32 [N, Q, 4]: (cx, cy, w, h) in shares of the picture
/// @grad             deltas (their dtype), references (f32; 0 where a maximum or the clamp holds them)
/// @throws           ShapeError, DTypeError, DeviceError, RangeError
/// @source           mmdetection's inverse_sigmoid, DeformableDETRHead and DINOHead
Tensor refined_boxes(const Tensor& deltas, const Tensor& references, float eps);

}  // namespace mixpl
