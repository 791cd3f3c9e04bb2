// Sequences of tokens [N, T, C]: joined, cut, masked.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// Sequences one after another: [N, T_i, C] -> [N, sum T_i, C]. Maps [N, H, W, C] count as H W tokens.
///
/// @param parts at least one, f32|bf16, all of one dtype and device, with the same N and C
/// @grad        each part, in its dtype
/// @throws      ShapeError, DTypeError, DeviceError
Tensor concat_tokens(const std::vector<Tensor>& parts);

/// Tokens first … first + count - 1 of every sequence: [N, T, C] -> [N, count, C].
///
/// @grad   x; 0 in the other tokens
/// @throws ShapeError, DTypeError, RangeError (a token beyond T, count < 1)
Tensor take_tokens(const Tensor& x, int64_t first, int64_t count);

/// x with zeros where `mask` is not 0.
///
/// @param x    f32|bf16 [N, T, C]
/// @param mask u8 [N, T], or undefined: x itself
/// @grad       x; 0 where masked
/// @throws     ShapeError, DTypeError, DeviceError
Tensor mask_tokens(const Tensor& x, const Tensor& mask);

/// x + rows[l] for the tokens of level l.
///
/// @param x      f32|bf16 [N, T, C]
/// @param rows   f32 [L, C]
/// @param counts tokens of each level; they sum to T
/// @return       x's shape and dtype
/// @grad         x, rows (f32; same bits on every run and for any thread count)
/// @throws       ShapeError, DTypeError, DeviceError
Tensor add_level_rows(const Tensor& x, const Tensor& rows, const std::vector<int64_t>& counts);

}  // namespace mixpl
