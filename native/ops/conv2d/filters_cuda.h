// Filters as the matrix products read them.
#pragma once

#include "core/tensor.h"

namespace mixpl::cuda {

/// `weight` as rows of `length` elements of `type`, each padded with zeros to whole chunks of 16
/// bytes: the weight itself where nothing changes, else a copy that is kept with it.
Tensor filter_rows(const Tensor& weight, DType type, int64_t length);

}  // namespace mixpl::cuda
