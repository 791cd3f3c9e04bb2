#pragma once

#include "core/tensor.h"
#include "detect/box_coder.h"

namespace mixpl {

/// Boxes by centre and size from what a head regresses against others:
/// cx = rx + dx rw, w = rw exp(dw), likewise cy and h, with d = delta * std + mean and dw, dh held
/// within the coder's limit. A NaN stays one.
///
/// @param deltas     f32|bf16 [N, Q, 4]
/// @param references f32 [N, Q, 4] (cx, cy, w, h), in any unit
/// @return           f32 [N, Q, 4] (cx, cy, w, h), in the same unit
/// @grad             deltas (their dtype), references (f32); a width or height beyond the limit
///                   gives its delta none. A gradient of 0 gives 0, whatever the deltas are
/// @throws           ShapeError, DTypeError, DeviceError
/// @source           as DeltaCoder::decode; mmdetection's SparseRoIHead, where the boxes that a
///                   detector learns start as references
Tensor centers_from_deltas(const Tensor& deltas, const Tensor& references, const DeltaCoder& coder);

namespace cpu {
void centers_from_deltas_forward(const Tensor& deltas, const Tensor& references,
                                 const DeltaCoder& coder, Tensor& boxes);
/// A gradient that is undefined is not wanted.
void centers_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas,
                                  const Tensor& references, const DeltaCoder& coder,
                                  Tensor& ddeltas, Tensor& dreferences);
}  // namespace cpu
namespace cuda {
void centers_from_deltas_forward(const Tensor& deltas, const Tensor& references,
                                 const DeltaCoder& coder, Tensor& boxes);
void centers_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas,
                                  const Tensor& references, const DeltaCoder& coder,
                                  Tensor& ddeltas, Tensor& dreferences);
}  // namespace cuda

}  // namespace mixpl
