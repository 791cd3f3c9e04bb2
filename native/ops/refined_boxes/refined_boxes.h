#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Boxes of a head that moves references: sigmoid(deltas + inverse_sigmoid(references)), the
/// inverse being ln(max(r, eps) / max(1 - r, eps)) of r clamped to [0, 1].
///
/// @param deltas     f32|bf16 [N, Q, 4]
/// @param references f32 [N, Q, 4 | 2]; of two numbers (x, y) only these are moved, width and
///                   height are sigmoid(delta)
/// @param eps        > 0: 1e-5 usually, 1e-3 in DINO's decoder. 0: references are logits already,
///                   and may be infinite
/// @return           f32 [N, Q, 4]: (cx, cy, w, h) in shares of the picture
/// @grad             deltas (their dtype), references (f32). Of the inverse's slope, 1 / r plus
///                   1 / (1 - r), a part whose maximum is eps falls away; beyond [0, 1] both do
/// @throws           ShapeError, DTypeError, DeviceError, RangeError
/// @source           mmdetection's inverse_sigmoid, DeformableDETRHead and DINOHead
Tensor refined_boxes(const Tensor& deltas, const Tensor& references, float eps);

namespace cpu {
void refined_boxes_forward(const Tensor& deltas, const Tensor& references, float eps,
                           Tensor& boxes);
/// A gradient that is undefined is not wanted.
void refined_boxes_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& references,
                            float eps, Tensor& ddeltas, Tensor& dreferences);
}  // namespace cpu
namespace cuda {
void refined_boxes_forward(const Tensor& deltas, const Tensor& references, float eps,
                           Tensor& boxes);
void refined_boxes_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& references,
                            float eps, Tensor& ddeltas, Tensor& dreferences);
}  // namespace cuda

}  // namespace mixpl
