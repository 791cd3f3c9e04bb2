// Two-dimensional convolution with what usually follows it.
#pragma once

#include "core/tensor.h"

namespace mixpl {

struct Conv2dOptions {
  int stride = 1, padding = 0, dilation = 1, groups = 1;
  bool relu = false;
};

/// relu?(conv(x, weight) + bias + residual), zero padding on all sides.
///
/// @param x        f32|bf16 [N, H, W, C]
/// @param weight   f32 [K, R, S, C / groups]; cast to x's dtype for bf16, sums in f32
/// @param bias     f32 [K], or undefined
/// @param residual x's dtype [N, P, Q, K], or undefined; P = (H + 2 padding - dilation (R-1) - 1) /
/// stride + 1
/// @return         [N, P, Q, K] in x's dtype
/// @grad           x and residual (x's dtype), weight and bias (f32)
/// @throws         ShapeError, DTypeError, RangeError
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options = {}, const Tensor& residual = {});

/// The shape of conv2d's result.
Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options);

namespace cpu {
void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& options, Tensor& y);
void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                          Tensor& dx);
void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight);
/// dy *= (y > 0) when y is defined; dbias (f32 [K], may be undefined) = column sums of the result.
void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias);
}  // namespace cpu
namespace cuda {
void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& options, Tensor& y);
void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                          Tensor& dx);
void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight);
void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias);
}  // namespace cuda

}  // namespace mixpl
