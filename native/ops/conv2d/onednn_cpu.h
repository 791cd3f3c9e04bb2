// Convolutions by oneDNN: where it is quickest, and on processors without AVX-512.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu {

// As the functions of conv2d.h, for tensors that are not empty and, in bf16, where
// onednn::has_bf16().
void onednn_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& options, Tensor& y);
void onednn_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& options,
                          Tensor& dx);
/// One group only.
void onednn_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight);
/// Whether onednn_backward_weight computes this one correctly.
bool onednn_gets_weight_gradient(const Tensor& x, const Tensor& dweight,
                                 const Conv2dOptions& options);

}  // namespace mixpl::cpu
