#pragma once

#include "core/tensor.h"

namespace mixpl {

/// a + b, b repeated along the leading axes that it lacks.
///
/// @param a f32|bf16 [..., *B]
/// @param b f32|bf16, of the shape *B that a's ends with, e.g. [C], a's whole shape, or []
/// @return  a's shape and dtype; sums in f32
/// @grad    a and b, each in its own dtype (dy itself where nothing is summed or cast); b's sums
/// over
///          the leading axes are in f32, of chunks in f64, with the same bits on every run and for
///          any thread count
/// @throws  ShapeError, DTypeError, DeviceError
Tensor add(const Tensor& a, const Tensor& b);

namespace cpu {
void add_forward(const Tensor& a, const Tensor& b, Tensor& y);
/// db: sums of dy over the leading axes.
void add_backward(const Tensor& dy, Tensor& db);
}  // namespace cpu
namespace cuda {
void add_forward(const Tensor& a, const Tensor& b, Tensor& y);
void add_backward(const Tensor& dy, Tensor& db);
}  // namespace cuda

}  // namespace mixpl
