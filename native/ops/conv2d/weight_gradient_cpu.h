#pragma once

#include "ops/conv2d/conv2d.h"

namespace mixpl::cpu {

/// dweight of a convolution (see conv2d_backward_weight), the same bits for any number of threads.
/// One group. False, and nothing written, on another processor, and, unless `always`, for few
/// channels and for shapes that oneDNN is as quick at.
bool weight_gradient_avx512(const Tensor& x, const Tensor& dy, const Conv2dOptions& options,
                            bool always, Tensor& dweight);

}  // namespace mixpl::cpu
