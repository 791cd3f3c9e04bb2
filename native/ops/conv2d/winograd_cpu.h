// 3x3 convolution of stride 1 by Winograd's minimal filtering F(4x4, 3x3), its weight gradient by
// F(3x3, 4x4), in f32 with AVX-512 or AVX2.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu {

/// As conv2d_forward, conv2d_backward_data, conv2d_backward_weight, for a 3x3 kernel, stride 1,
/// dilation 1, one group, in f32 or bf16 (products and sums are f32 then, too). Within 3e-6 of the
/// largest output, where sums tap by tap are within 1e-6. The same bits for any number of threads.
void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& residual, const Conv2dOptions& options, Tensor& y);
void winograd_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                            Tensor& dx);
void winograd_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                              Tensor& dweight);

/// Whether these work here for an R x S kernel,
bool winograd_fits(const Conv2dOptions& options, int64_t r, int64_t s, DType dtype);
/// and are the quickest way to [N, H, W, C] -> [N, P, Q, K].
bool winograd_pays(const Shape& in, const Shape& weight, const Shape& out,
                   const Conv2dOptions& options, DType dtype);
bool winograd_gradient_pays(const Tensor& x, const Tensor& dy, const Tensor& dweight,
                            const Conv2dOptions& options);

}  // namespace mixpl::cpu
