#pragma once

#include "core/tensor.h"

namespace mixpl {

/// max(x, 0), keeping NaN.
///
/// @param x  f32|bf16 [...]
/// @return   as x
/// @grad     x, where the output is positive; overwrites the incoming gradient where it is the only
///           owner; keeps the output, not x
/// @throws   DTypeError, ShapeError
Tensor relu(const Tensor& x);

namespace cpu {
void relu_forward(const Tensor& x, Tensor& y);
/// dx = dout where y > 0, else 0; dx may be dout.
void relu_backward(const Tensor& y, const Tensor& dout, Tensor& dx);
}  // namespace cpu

namespace cuda {
void relu_forward(const Tensor& x, Tensor& y);
void relu_backward(const Tensor& y, const Tensor& dout, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
