#pragma once

#include "core/tensor.h"

namespace mixpl {

/// The same numbers under another shape, on the tape; shares the memory.
/// @grad x. @throws ShapeError when the counts differ
Tensor reshape(const Tensor& x, const Shape& shape);

}  // namespace mixpl
