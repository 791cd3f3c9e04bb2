#pragma once

#include "core/tensor.h"

namespace mixpl {

/// What attention in a square window adds to the scores: a learned number for each head and
/// distance of two tokens. Token t lies in row floor(t / size) and column t % size.
///
/// @param table f32 [(2 size - 1)^2, M], row (y_q - y_k + size - 1) (2 size - 1) + x_q - x_k + size
/// - 1
///              for query q and key k
/// @param size  cells of a window's side, in [1, 64]
/// @return      f32 [1, M, size^2, size^2], as attention takes it
/// @grad        table, each number the sum over its pairs in the order of queries: the same bits on
///              every run and for any thread count
/// @throws      ShapeError, DTypeError, RangeError
/// @source      Liu et al. 2021, arXiv:2103.14030, section 3.2
Tensor relative_position_bias(const Tensor& table, int64_t size);

namespace cpu {
void relative_position_bias_forward(const Tensor& table, int64_t size, Tensor& bias);
void relative_position_bias_backward(const Tensor& dbias, int64_t size, Tensor& dtable);
}  // namespace cpu
namespace cuda {
void relative_position_bias_forward(const Tensor& table, int64_t size, Tensor& bias);
void relative_position_bias_backward(const Tensor& dbias, int64_t size, Tensor& dtable);
}  // namespace cuda

}  // namespace mixpl
