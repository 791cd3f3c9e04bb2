#pragma once

#include "core/philox.h"
#include "core/tensor.h"

namespace mixpl {

/// Each number is 0 with probability p (whatever it was, NaN too), or multiplied by 1 / (1 - p) in
/// f32. Which ones follows from `random` and the number's index alone, so that a second run of the
/// same pass makes the same choice: number i is 0 where the stream's i-th word is below p 2^32.
/// Nothing is kept for the way back, which draws again.
///
/// @param x f32|bf16, any shape
/// @param p in [0, 1); with 0 x itself is returned
/// @return  x's shape and dtype
/// @grad    x; overwrites the incoming gradient where it is the only owner
/// @throws  DTypeError, RangeError
/// @source  Srivastava et al. 2014; scaled in training as torch.nn.functional.dropout
Tensor dropout(const Tensor& x, float p, const Philox& random);

/// The same for whole samples (stochastic depth, Huang et al. 2016, arXiv:1603.09382): one draw for
/// each index of the first axis, which x must have. @throws ShapeError, too
Tensor drop_path(const Tensor& x, float p, const Philox& random);

namespace cpu {
/// y = x where it is kept, times the scale; a draw for each `run` neighbouring numbers. y may be x.
void dropout_apply(const Tensor& x, float p, const Philox& random, int64_t run, Tensor& y);
}  // namespace cpu
namespace cuda {
void dropout_apply(const Tensor& x, float p, const Philox& random, int64_t run, Tensor& y);
}  // namespace cuda

}  // namespace mixpl
