#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Square patches of a map, each the channels of one cell: what a convolution with stride = kernel
/// = `size` multiplies with its OHWI weight, the map padded with zeros below and to the right up to
/// whole patches. (mmdetection's patch merging has the cells innermost, its weights are OIHW: other
/// libraries' weights are turned when they are loaded.)
///
/// @param x    f32|bf16 [N, H, W, C]
/// @param size in [1, 64]
/// @return     x's dtype [N, ceil(H / size), ceil(W / size), size size C]: rows of a patch,
/// columns,
///             channels
/// @grad       x, in its dtype
/// @throws     ShapeError, DTypeError, RangeError
Tensor patches(const Tensor& x, int64_t size);

namespace cpu {
void patches_forward(const Tensor& x, int64_t size, Tensor& y);
void patches_backward(const Tensor& dy, int64_t size, Tensor& dx);
}  // namespace cpu
namespace cuda {
void patches_forward(const Tensor& x, int64_t size, Tensor& y);
void patches_backward(const Tensor& dy, int64_t size, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
