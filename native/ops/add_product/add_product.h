#pragma once

#include "core/tensor.h"

namespace mixpl {

/// x + a b, element by element: positions b, scaled by a, are added to tokens x in one pass.
///
/// @param x f32|bf16, any shape
/// @param a as x
/// @param b as x
/// @return  as x; computed in f32
/// @grad    x (dy itself), a, b
/// @throws  ShapeError, DTypeError, DeviceError
Tensor add_product(const Tensor& x, const Tensor& a, const Tensor& b);

namespace cpu {
void add_product(const Tensor& x, const Tensor& a, const Tensor& b, Tensor& y);
/// y = a b
void product(const Tensor& a, const Tensor& b, Tensor& y);
}  // namespace cpu
namespace cuda {
void add_product(const Tensor& x, const Tensor& a, const Tensor& b, Tensor& y);
void product(const Tensor& a, const Tensor& b, Tensor& y);
}  // namespace cuda

}  // namespace mixpl
