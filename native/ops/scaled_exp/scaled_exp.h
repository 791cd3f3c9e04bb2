#pragma once

#include "core/tensor.h"

namespace mixpl {

/// scale exp(x), element by element: positive distances with one learned factor.
///
/// @param x     f32|bf16 [...]
/// @param scale f32 []
/// @return      f32 [...]
/// @grad        x (its dtype), scale (f32; a sum in double, the same bits for any thread count)
/// @throws      ShapeError, DTypeError, DeviceError
Tensor scaled_exp(const Tensor& x, const Tensor& scale);

namespace cpu {
void scaled_exp_forward(const Tensor& x, const Tensor& scale, Tensor& y);
/// Either gradient may be undefined.
void scaled_exp_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                         Tensor& dscale);
}  // namespace cpu

namespace cuda {
void scaled_exp_forward(const Tensor& x, const Tensor& scale, Tensor& y);
void scaled_exp_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                         Tensor& dscale);
}  // namespace cuda

}  // namespace mixpl
