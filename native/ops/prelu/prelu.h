#pragma once

#include "core/tensor.h"

namespace mixpl {

/// x where it is positive, slope x elsewhere; NaN stays NaN.
///
/// @param x     f32|bf16, any shape
/// @param slope f32 [1], learned: one for all channels
/// @return      x's shape and dtype
/// @grad        x in its dtype, overwriting the incoming gradient where it is the only owner; slope
///              in f32, summed in f32 by few numbers at a time and in f64 over those; the same bits
///              for any thread count
/// @throws      ShapeError, DTypeError, DeviceError
/// @source      He et al. 2015, arXiv:1502.01852; as torch.nn.PReLU with one parameter
Tensor prelu(const Tensor& x, const Tensor& slope);

namespace cpu {
void prelu_forward(const Tensor& x, const Tensor& slope, Tensor& y);
/// dx may be dy. A gradient that is undefined is not wanted.
void prelu_backward(const Tensor& x, const Tensor& slope, const Tensor& dy, Tensor& dx,
                    Tensor& dslope);
}  // namespace cpu
namespace cuda {
void prelu_forward(const Tensor& x, const Tensor& slope, Tensor& y);
void prelu_backward(const Tensor& x, const Tensor& slope, const Tensor& dy, Tensor& dx,
                    Tensor& dslope);
}  // namespace cuda

}  // namespace mixpl
