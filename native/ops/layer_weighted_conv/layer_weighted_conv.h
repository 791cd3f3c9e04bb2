#pragma once

#include "core/tensor.h"

namespace mixpl {

/// A 1x1 convolution of S feature maps that lie side by side along the channels, each map weighted
/// by a number of its image: y[n] = sum_s a[n, s] W_s x_s[n]. The numbers go into a copy of the
/// filters, image by image, so that no weighted copy of the maps is kept.
///
/// @param x         f32|bf16 [N, H, W, S C]
/// @param weight    f32 [K, 1, 1, S C]
/// @param attention x's dtype [N, ..., S] with one number per image and map, e.g. [N, 1, 1, S];
///                  S >= 1 divides the channels
/// @return          x's dtype [N, H, W, K]
/// @grad            x and attention (x's dtype), weight (f32, summed image by image)
/// @throws          ShapeError, DTypeError, DeviceError
/// @source          TOOD (Feng et al. 2021), eqs. 3 and 4, task decomposition, in the form of
///                  mmdetection's TaskDecomposition
Tensor layer_weighted_conv(const Tensor& x, const Tensor& weight, const Tensor& attention);

namespace cpu {
/// scaled[k, s C + c] = attention[image, s] weight[k, s C + c]
void weigh_layers(const Tensor& weight, const Tensor& attention, int64_t image, Tensor& scaled);
/// From the gradient of one image's filters: adds to dweight, writes row `image` of dattention.
/// Either may be undefined.
void weigh_layers_backward(const Tensor& dscaled, const Tensor& weight, const Tensor& attention,
                           int64_t image, Tensor& dweight, Tensor& dattention);
}  // namespace cpu
namespace cuda {
void weigh_layers(const Tensor& weight, const Tensor& attention, int64_t image, Tensor& scaled);
void weigh_layers_backward(const Tensor& dscaled, const Tensor& weight, const Tensor& attention,
                           int64_t image, Tensor& dweight, Tensor& dattention);
}  // namespace cuda

}  // namespace mixpl
