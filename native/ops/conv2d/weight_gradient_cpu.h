#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu {

/// dweight of a convolution (see conv2d_backward_weight), the same bits for any number of threads.
/// False, and nothing written, when this processor or these shapes are not covered.
bool weight_gradient_avx512(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            Tensor& dweight);

}  // namespace mixpl::cpu
