#pragma once

#include "core/tensor.h"

namespace mixpl {

/// x Phi(x), Phi the normal distribution's (erf, not the tanh approximation). Of infinities their
/// limits, infinity and 0; NaN stays NaN.
///
/// @param x f32|bf16, any shape
/// @return  x's shape and dtype; in f32 within 7e-7 relative where it is no subnormal number, the
///          far tail of negative x too
/// @grad    x; overwrites the incoming gradient where it is the only owner
/// @throws  DTypeError
/// @source  Hendrycks and Gimpel 2016, arXiv:1606.08415; as torch.nn.functional.gelu
Tensor gelu(const Tensor& x);

namespace cpu {
void gelu_forward(const Tensor& x, Tensor& y);
/// dx may be dy.
void gelu_backward(const Tensor& x, const Tensor& dy, Tensor& dx);
}  // namespace cpu
namespace cuda {
void gelu_forward(const Tensor& x, Tensor& y);
void gelu_backward(const Tensor& x, const Tensor& dy, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
