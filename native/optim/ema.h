#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// teacher = (1 - momentum) teacher + momentum student, for all pairs of f32 tensors; momentum 1
/// copies, 0 changes nothing.
/// @throws ShapeError, DTypeError, RangeError, before anything was changed
void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum);

}  // namespace mixpl
