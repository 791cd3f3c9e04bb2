// For kernels that have filters at hand before a matrix product asks for its copy of them.
#pragma once

#include <string>

#include "core/tensor.h"

namespace mixpl::cuda {

/// Where filter_rows(weight, type, length) will look for rows that the caller writes; undefined
/// where `length`, of the last axis, is not whole chunks.
Tensor place_for_filter_rows(const Tensor& weight, DType type, int64_t length);

/// What a bf16 copy of filters is derived under, if it has no padding and no rows beside theirs.
const std::string& key_of_plain_rows();

}  // namespace mixpl::cuda
