// Fully connected layer over the last axis.
#pragma once

#include "core/tensor.h"

namespace mixpl {

struct LinearOptions {
  bool relu = false;
};

/// relu?(x weight^T + bias).
///
/// @param x      f32|bf16 [..., C], one axis at least
/// @param weight f32 [K, C]; cast to x's dtype for bf16, sums in f32
/// @param bias   f32 [K], or undefined
/// @return       [..., K] in x's dtype
/// @grad         x (its dtype), weight and bias (f32)
/// @throws       ShapeError, DTypeError, DeviceError
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const LinearOptions& options = {});

}  // namespace mixpl
