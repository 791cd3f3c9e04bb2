#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Row by row the box, or the fallback where the box is inverted (x1 > x2 or y1 > y2).
///
/// @param boxes    f32, B times 4 numbers in any shape, xyxy, e.g. [N, H, W, 4]
/// @param fallback f32 of the same shape
/// @return         f32 [B, 4]
/// @grad           each, where its row was taken
/// @throws         ShapeError, DTypeError, DeviceError
/// @source         mmdetection TOODHead.forward, what follows the sampling
Tensor valid_boxes(const Tensor& boxes, const Tensor& fallback);

namespace cpu {
void valid_boxes_forward(const Tensor& boxes, const Tensor& fallback, Tensor& out);
/// Either gradient may be undefined.
void valid_boxes_backward(const Tensor& dout, const Tensor& boxes, Tensor& dboxes,
                          Tensor& dfallback);
}  // namespace cpu
namespace cuda {
void valid_boxes_forward(const Tensor& boxes, const Tensor& fallback, Tensor& out);
void valid_boxes_backward(const Tensor& dout, const Tensor& boxes, Tensor& dboxes,
                          Tensor& dfallback);
}  // namespace cuda

}  // namespace mixpl
