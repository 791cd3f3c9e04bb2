#pragma once

#include "core/tensor.h"
#include "detect/box_coder.h"

namespace mixpl {

/// Boxes from what a head regresses against its anchors, for losses of the boxes themselves.
///
/// @param deltas  f32|bf16, N times A times 4 numbers in any shape, e.g. [N, H, W, 4]
/// @param anchors f32 [A, 4] xyxy, the same for every image
/// @return        f32 [N A, 4] xyxy
/// @grad          deltas, in their dtype; a width or height beyond the coder's limit has none. A
///                box whose gradient is 0 gives 0, whatever its deltas are
/// @throws        ShapeError, DTypeError, DeviceError
/// @source        as DeltaCoder::decode
Tensor boxes_from_deltas(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder);

namespace cpu {
void boxes_from_deltas_forward(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                               Tensor& boxes);
void boxes_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& anchors,
                                const DeltaCoder& coder, Tensor& ddeltas);
}  // namespace cpu
namespace cuda {
void boxes_from_deltas_forward(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                               Tensor& boxes);
void boxes_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& anchors,
                                const DeltaCoder& coder, Tensor& ddeltas);
}  // namespace cuda

}  // namespace mixpl
