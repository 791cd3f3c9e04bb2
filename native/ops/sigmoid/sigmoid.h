#pragma once

#include "core/tensor.h"

namespace mixpl {

/// 1 / (1 + exp(-x)), element by element; NaN stays NaN.
///
/// @param x f32|bf16 [...]
/// @return  as x
/// @grad    x: dy sigmoid(x) sigmoid(-x), from x and not from the rounded output
/// @throws  DTypeError, ShapeError
Tensor sigmoid(const Tensor& x);

namespace cpu {
void sigmoid_forward(const Tensor& x, Tensor& y);
void sigmoid_backward(const Tensor& x, const Tensor& dy, Tensor& dx);
}  // namespace cpu

namespace cuda {
void sigmoid_forward(const Tensor& x, Tensor& y);
void sigmoid_backward(const Tensor& x, const Tensor& dy, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
