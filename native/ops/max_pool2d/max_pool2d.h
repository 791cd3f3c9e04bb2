#pragma once

#include "core/tensor.h"

namespace mixpl {

struct Pool2dOptions {
  int kernel = 3, stride = 2, padding = 1;
};

/// Largest value in each window; padding counts as minus infinity. NaN wins, as in PyTorch.
///
/// @param x f32|bf16 [N, H, W, C]
/// @return  [N, P, Q, C], P = (H + 2 padding - kernel) / stride + 1, rounded down
/// @grad    x: goes to the first largest value of each window (row-major)
/// @throws  ShapeError, DTypeError, RangeError
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options);

namespace cpu {
/// winner: u8 [N, P, Q, C], position in the window; undefined when not wanted
void max_pool2d_forward(const Tensor& x, const Pool2dOptions& options, Tensor& y, Tensor& winner);
void max_pool2d_backward(const Tensor& dy, const Tensor& winner, const Pool2dOptions& options,
                         Tensor& dx);
}  // namespace cpu

namespace cuda {
void max_pool2d_forward(const Tensor& x, const Pool2dOptions& options, Tensor& y, Tensor& winner);
void max_pool2d_backward(const Tensor& dy, const Tensor& winner, const Pool2dOptions& options,
                         Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
