#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// scale * (a + b + ...) of f32 scalars: a loss gathered over pyramid levels and normalised. At most
/// 256 scalars; without any, 0 on the device of the context.
/// @grad every input. @throws ShapeError, DTypeError, DeviceError
Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale);

/// scale * (a + b + ...) / divisor, where the normaliser was counted on the device and stays there.
/// @param divisor f32 [1], a constant: it gets no gradient. 0 gives what IEEE 754 says
/// @grad every scalar. @throws ShapeError, DTypeError, DeviceError
Tensor scaled_sum(const std::vector<Tensor>& scalars, const Tensor& divisor, float scale = 1);

namespace cpu {
/// y = scale * (sum of the terms) / divisor, or without the division when it is undefined.
void scaled_sum_forward(const std::vector<Tensor>& terms, const Tensor& divisor, float scale,
                        Tensor& y);
/// dterm = scale * dy / divisor
void scaled_sum_backward(const Tensor& dy, const Tensor& divisor, float scale, Tensor& dterm);
}  // namespace cpu

namespace cuda {
void scaled_sum_forward(const std::vector<Tensor>& terms, const Tensor& divisor, float scale,
                        Tensor& y);
void scaled_sum_backward(const Tensor& dy, const Tensor& divisor, float scale, Tensor& dterm);
}  // namespace cuda

}  // namespace mixpl
