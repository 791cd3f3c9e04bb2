#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Mean over the pixels of each image and channel.
///
/// @param x f32|bf16 [N, H, W, C], H W >= 1
/// @return  x's dtype [N, 1, 1, C]; sums are f32 in chunks of rows, added in order: the same bits
///          for any thread count
/// @grad    x
/// @throws  ShapeError, DTypeError
Tensor global_average_pool(const Tensor& x);

namespace cpu {
void global_average_pool_forward(const Tensor& x, Tensor& y);
void global_average_pool_backward(const Tensor& dy, Tensor& dx);
}  // namespace cpu

namespace cuda {
void global_average_pool_forward(const Tensor& x, Tensor& y);
void global_average_pool_backward(const Tensor& dy, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
