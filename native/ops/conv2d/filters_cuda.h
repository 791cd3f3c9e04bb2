// Filters as the matrix products read them.
#pragma once

#include "core/tensor.h"

namespace mixpl::cuda {

/// `weight` as rows of `length` elements of `type`, each padded with zeros to whole chunks of 16
/// bytes, and `zero_rows` after them: the weight itself where nothing changes, else a copy that is
/// kept with it.
Tensor filter_rows(const Tensor& weight, DType type, int64_t length, int64_t zero_rows = 0);

/// Filters [K, R, S, C] for pixels in pairs: rows of [R, pairs, 2 C] elements, `lead` (0 or 1)
/// columns of zeros before those of a filter, zeros after them; padded and kept likewise.
Tensor paired_filter_rows(const Tensor& weight, DType type, int lead, int pairs);

}  // namespace mixpl::cuda
