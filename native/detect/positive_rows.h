#pragma once

#include "core/tensor.h"

namespace mixpl {

/// The places of numbers > 0, rising: i32 [P]. On a GPU, which does not tell the host how many
/// there are, P is `most`, and -1 follows the last.
/// @param positive f32, in any shape, with at most `most` such numbers
Tensor positive_rows(const Tensor& positive, int64_t most);

namespace cpu {
void find_positive_rows(const Tensor& positive, int64_t most, Tensor& rows);
}  // namespace cpu
namespace cuda {
void find_positive_rows(const Tensor& positive, int64_t most, Tensor& rows);
}  // namespace cuda

}  // namespace mixpl
