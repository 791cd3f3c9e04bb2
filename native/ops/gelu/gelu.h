#pragma once

#include "core/tensor.h"

namespace mixpl {

/// x Phi(x), Phi the normal distribution's (erf, not the tanh approximation).
///
/// @param x f32|bf16, any shape
/// @return  x's shape and dtype
/// @grad    x
/// @throws  DTypeError
/// @source  Hendrycks and Gimpel 2016, arXiv:1606.08415; as torch.nn.functional.gelu
Tensor gelu(const Tensor& x);

}  // namespace mixpl
