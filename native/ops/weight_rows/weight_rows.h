#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Rows begin … end - 1 of a parameter, as a tensor of its own over the same values: for parameters
/// that hold several, as PyTorch's in_proj_weight does. Kept with the parameter as long as its
/// values stay, and so is what kernels derive from the rows.
///
/// Use it at once: its gradient goes to the parameter when the op that was recorded next has left
/// it, before another use of the same rows could add to it.
///
/// @param weight f32, one axis at least
/// @param begin, end 0 <= begin <= end <= size(0)
/// @return       f32 [end - begin, ...]
/// @grad         weight: added to these rows of what it gathered
/// @throws       ShapeError, DTypeError, RangeError
Tensor weight_rows(const Tensor& weight, int64_t begin, int64_t end);

}  // namespace mixpl
