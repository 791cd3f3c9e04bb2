#pragma once

#include "core/tensor.h"

namespace mixpl {

/// lateral + top enlarged to lateral's size, nearest neighbour: source index floor(i * from / to).
///
/// @param lateral f32|bf16 [N, H, W, C]
/// @param top     lateral's dtype [N, H', W', C]
/// @return        [N, H, W, C]
/// @grad          both; top gathers the sum over the pixels that it fed
/// @throws        ShapeError, DTypeError
/// @source        top-down path of FPN (Lin et al. 2017), as mmdetection's F.interpolate(size=...)
Tensor upsample_add(const Tensor& lateral, const Tensor& top);

namespace cpu {
void upsample_add_forward(const Tensor& lateral, const Tensor& top, Tensor& y);
void upsample_add_backward(const Tensor& dy, Tensor& dtop);
}  // namespace cpu

namespace cuda {
void upsample_add_forward(const Tensor& lateral, const Tensor& top, Tensor& y);
void upsample_add_backward(const Tensor& dy, Tensor& dtop);
}  // namespace cuda

}  // namespace mixpl
