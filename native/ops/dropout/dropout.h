#pragma once

#include "core/philox.h"
#include "core/tensor.h"

namespace mixpl {

/// Each number is 0 with probability p, or divided by 1 - p. Which ones follows from `random` and the
/// number's index alone, so that a second run of the same pass makes the same choice.
///
/// @param x f32|bf16, any shape
/// @param p in [0, 1); with 0 x itself is returned
/// @return  x's shape and dtype
/// @grad    x
/// @throws  DTypeError, RangeError
Tensor dropout(const Tensor& x, float p, const Philox& random);

/// The same for whole samples (stochastic depth, Huang et al. 2016): one draw for each index of the
/// first axis.
Tensor drop_path(const Tensor& x, float p, const Philox& random);

}  // namespace mixpl
