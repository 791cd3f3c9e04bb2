#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Some rows of x, in f32: what a loss needs of the few places that have a target.
///
/// @param x    f32|bf16, rows of C numbers in any shape, e.g. [N, H, W, C]
/// @param rows i32 [P], in any order, no row twice; may be empty; -1 is no row, and gives zeros
///             (a list made on a GPU ends with some). Other values and rows that come again are the
///             caller's mistake, which the named op "gatherRows" checks (a look at them waits for
///             the device)
/// @param columns C, a divisor of numel(x)
/// @return     f32 [P, C]
/// @grad       x, in its dtype; 0 in the other rows
/// @throws     ShapeError, DTypeError, DeviceError
Tensor gather_rows(const Tensor& x, const Tensor& rows, int64_t columns);

namespace cpu {
void gather_rows_forward(const Tensor& x, const Tensor& rows, Tensor& y);
/// Writes the given rows of dx only.
void gather_rows_backward(const Tensor& dy, const Tensor& rows, Tensor& dx);
}  // namespace cpu

namespace cuda {
void gather_rows_forward(const Tensor& x, const Tensor& rows, Tensor& y);
void gather_rows_backward(const Tensor& dy, const Tensor& rows, Tensor& dx);
}  // namespace cuda

}  // namespace mixpl
