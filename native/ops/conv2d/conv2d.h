// Two-dimensional convolution with what usually follows it.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

struct Conv2dOptions {
  int stride = 1, padding = 0, dilation = 1, groups = 1;
  bool relu = false;
};

/// relu?(conv(x, weight) + bias + residual), zero padding on all sides.
///
/// @param x        f32|bf16 [N, H, W, C]
/// @param weight   f32 [K, R, S, C / groups]; cast to x's dtype for bf16, sums in f32. On the CPU
///                 bf16, too, if x is
/// @param bias     f32 [K], or undefined
/// @param residual x's dtype [N, P, Q, K], or undefined; P = (H + 2 padding - dilation (R-1) - 1) /
/// stride + 1
/// @return         [N, P, Q, K] in x's dtype
/// @grad           x and residual (x's dtype), weight and bias (f32)
/// @throws         ShapeError, DTypeError, RangeError
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options = {}, const Tensor& residual = {});

/// More than any neck makes; bounds what kernels take by value, which is 4 KB on older drivers.
constexpr int kMostConvLevels = 8;

/// conv2d of several maps by the same filters, such as the levels of a pyramid: a GPU takes
/// kMostConvLevels of them in each launch, forward and backward, so the largest should come first.
/// Like the sum of one call after the other, but for rounding.
///
/// @param xs        one dtype, [N, H, W, C] each
/// @param residuals one per map, or none at all
std::vector<Tensor> conv2d(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                           const Conv2dOptions& options = {},
                           const std::vector<Tensor>& residuals = {});

/// The type in which to make filters for `kernel`x`kernel` that one pass reads: bf16 where the
/// device would round them to it anyway, given a context that computes in `compute`.
DType filter_type(Device device, int64_t kernel, const Conv2dOptions& options, DType compute);

/// The shape of conv2d's result.
Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options);

namespace cpu {
void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& options, Tensor& y);
/// `dy` as both of its gradients read it, made once for them: on a GPU with channels of zeros up to
/// whole chunks of 16 bytes, where that pays. They take a `dy` without, too, and pad it themselves.
Tensor pad_gradient(const Tensor& dy, const Shape& filters, const Conv2dOptions& options);
/// `add`: to what dx holds, rounded once on a GPU. The sum is 0 where `mask`, of dx's shape, is not
/// above 0, if it is defined.
void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                          Tensor& dx, bool add = false, const Tensor& mask = {});
/// `add`: to what dweight holds.
void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight, bool add = false);
/// Whether that mask costs less than a pass of its own.
bool masks_data_gradients();
/// Whether filters may be bf16 where x is, and give the same bits as their values in f32.
bool takes_bf16_filters(int64_t kernel, const Conv2dOptions& options);
/// dy *= (y > 0) when y is defined; dbias (f32 [K], may be undefined) = column sums of the result,
/// or those added to it.
void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias,
                         bool add = false);
/// The same for several maps, none of them without an output: their weight and bias gradients are
/// added in an order that is always the same. `residuals`: one per map, or none at all.
void conv2d_forward(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                    const std::vector<Tensor>& residuals, const Conv2dOptions& options,
                    const std::vector<Tensor>& ys);
std::vector<Tensor> pad_gradient(const std::vector<Tensor>& dys, const Shape& filters,
                                 const Conv2dOptions& options);
void conv2d_backward_data(const std::vector<Tensor>& dys, const Tensor& weight,
                          const Conv2dOptions& options, const std::vector<Tensor>& dxs,
                          const std::vector<bool>& add, const std::vector<Tensor>& masks);
void conv2d_backward_weight(const std::vector<Tensor>& xs, const std::vector<Tensor>& dys,
                            const Conv2dOptions& options, Tensor& dweight, bool add = false);
void mask_and_column_sum(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys,
                         const std::vector<Tensor>& masked, Tensor& dbias, bool add = false);
}  // namespace cpu
namespace cuda {
bool masks_data_gradients();
bool takes_bf16_filters(int64_t kernel, const Conv2dOptions& options);
void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& options, Tensor& y);
Tensor pad_gradient(const Tensor& dy, const Shape& filters, const Conv2dOptions& options);
void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                          Tensor& dx, bool add = false, const Tensor& mask = {});
void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight, bool add = false);
void mask_and_column_sum(const Tensor& y, const Tensor& dy, Tensor& masked, Tensor& dbias,
                         bool add = false);
void conv2d_forward(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                    const std::vector<Tensor>& residuals, const Conv2dOptions& options,
                    const std::vector<Tensor>& ys);
std::vector<Tensor> pad_gradient(const std::vector<Tensor>& dys, const Shape& filters,
                                 const Conv2dOptions& options);
void conv2d_backward_data(const std::vector<Tensor>& dys, const Tensor& weight,
                          const Conv2dOptions& options, const std::vector<Tensor>& dxs,
                          const std::vector<bool>& add, const std::vector<Tensor>& masks);
void conv2d_backward_weight(const std::vector<Tensor>& xs, const std::vector<Tensor>& dys,
                            const Conv2dOptions& options, Tensor& dweight, bool add = false);
void mask_and_column_sum(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys,
                         const std::vector<Tensor>& masked, Tensor& dbias, bool add = false);
}  // namespace cuda

}  // namespace mixpl
