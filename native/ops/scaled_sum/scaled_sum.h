#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// scale * (a + b + ...) of f32 scalars: a loss gathered over pyramid levels and normalised.
/// @grad every input. @throws ShapeError, DTypeError
Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale);

}  // namespace mixpl
