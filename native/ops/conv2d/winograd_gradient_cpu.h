// Weight gradient of a 3x3 convolution of stride 1 by Winograd's F(3x3, 4x4), in f32 with AVX-512.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu {

/// As conv2d_backward_weight, for a 3x3 kernel, stride 1, dilation 1, one group: x and dy in f32 or
/// bf16, products and sums in f32. The same bits for any number of threads.
void winograd_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                              Tensor& dweight);

/// Whether this works here, and is the quickest way.
bool winograd_gradient_pays(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                            const Conv2dOptions& options);

}  // namespace mixpl::cpu
