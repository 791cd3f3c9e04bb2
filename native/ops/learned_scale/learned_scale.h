#pragma once

#include "core/tensor.h"

namespace mixpl {

/// y = s x with one learned number s, as the box outputs of FCOS and its kin have one per level.
///
/// @param x     f32|bf16 [...]
/// @param scale f32 []
/// @return      as x
/// @grad        x in its dtype; scale in f32 (summed in f64, the same bits for any thread count)
/// @throws      ShapeError, DTypeError, DeviceError
Tensor learned_scale(const Tensor& x, const Tensor& scale);

namespace cpu {
void learned_scale_forward(const Tensor& x, const Tensor& scale, Tensor& y);
void learned_scale_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                            Tensor& dscale);
}  // namespace cpu

namespace cuda {
void learned_scale_forward(const Tensor& x, const Tensor& scale, Tensor& y);
void learned_scale_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                            Tensor& dscale);
}  // namespace cuda

}  // namespace mixpl
