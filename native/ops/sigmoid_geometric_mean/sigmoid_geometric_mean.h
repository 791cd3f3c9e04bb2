#pragma once

#include "core/tensor.h"

namespace mixpl {

/// sqrt(sigmoid(x) sigmoid(y)): a probability out of a class logit and one logit for all classes.
///
/// @param x f32|bf16 [..., C]
/// @param y x's dtype [..., 1]
/// @return  f32 [..., C]: bf16 would leave too little of 1 - z for a loss
/// @grad    x and y, in their dtype: dx = dz z (1 - sigmoid(x)) / 2, dy the same summed over C.
///          In this form no gradient is 0 / 0 where both are far below 0
/// @throws  ShapeError, DTypeError, DeviceError
/// @source  TOOD (Feng et al. 2021), eq. 6; mmdetection sigmoid_geometric_mean
Tensor sigmoid_geometric_mean(const Tensor& x, const Tensor& y);

namespace cpu {
void sigmoid_geometric_mean_forward(const Tensor& x, const Tensor& y, Tensor& z);
/// Either gradient may be undefined.
void sigmoid_geometric_mean_backward(const Tensor& dz, const Tensor& x, const Tensor& y, Tensor& dx,
                                     Tensor& dy);
}  // namespace cpu

namespace cuda {
void sigmoid_geometric_mean_forward(const Tensor& x, const Tensor& y, Tensor& z);
void sigmoid_geometric_mean_backward(const Tensor& dz, const Tensor& x, const Tensor& y, Tensor& dx,
                                     Tensor& dy);
}  // namespace cuda

}  // namespace mixpl
