#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Rows of a table by their index; a row may be taken any number of times.
///
/// @param table f32 [K, C]
/// @param index i32 [...]: 0 … K-1, or -1: zeros. Others are the caller's mistake, which the named
/// op
///              "embedding" checks (a look at them waits for the device)
/// @param dtype f32 or bf16
/// @return      dtype [..., C]
/// @grad        table (f32), each row the sum over its uses in the order of the index: the same
/// bits
///              on every run and for any thread count
/// @throws      ShapeError, DTypeError, DeviceError
Tensor embedding(const Tensor& table, const Tensor& index, DType dtype);

namespace cpu {
void embedding_forward(const Tensor& table, const Tensor& index, Tensor& y);
void embedding_backward(const Tensor& dy, const Tensor& index, Tensor& dtable);
}  // namespace cpu
namespace cuda {
void embedding_forward(const Tensor& table, const Tensor& index, Tensor& y);
void embedding_backward(const Tensor& dy, const Tensor& index, Tensor& dtable);
}  // namespace cuda

}  // namespace mixpl
