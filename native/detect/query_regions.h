// Where a detector of queries looks: their boxes as regions of a pyramid.
#pragma once

#include "core/tensor.h"
#include "detect/regions.h"

namespace mixpl {

/// Edges of a region, in pixels: no map reaches as far, and roi_align takes them.
constexpr float kFarthestRegion = 5e6f;

/// The region of every query, image after image. Boxes are not clipped, but end within
/// kFarthestRegion of the image's corner; one with a NaN is a region of 0.
///
/// @param boxes f32 [N, Q, 4] (cx, cy, w, h) in shares of the image
/// @param sizes f32 [N, 2]: see ImageSize
/// @return      N Q regions; without a gradient
/// @throws      ShapeError, DTypeError, DeviceError
Regions query_regions(const Tensor& boxes, const Tensor& sizes);

namespace cpu {
void query_regions(const Tensor& boxes, const Tensor& sizes, const Regions& regions);
}  // namespace cpu
namespace cuda {
void query_regions(const Tensor& boxes, const Tensor& sizes, const Regions& regions);
}  // namespace cuda

}  // namespace mixpl
