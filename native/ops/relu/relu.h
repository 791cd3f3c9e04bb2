#pragma once

#include "core/tensor.h"

namespace mixpl {

/// max(x, 0). @param x f32|bf16, any shape. @grad x: where the output is positive
Tensor relu(const Tensor& x);

namespace cpu {
void relu_forward(const Tensor& x, Tensor& y);
}

}  // namespace mixpl
