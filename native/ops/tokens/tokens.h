// Sequences of tokens [N, T, C]: joined, cut, masked.
#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/pyramid.h"

namespace mixpl {

/// Sequences one after another: [N, T_i, C] -> [N, sum T_i, C]. Maps [N, H, W, C] count as H W
/// tokens.
///
/// @param parts at least one, f32|bf16, all of one dtype and device, with the same N and C
/// @return      one part alone shares its memory
/// @grad        each part, in its dtype
/// @throws      ShapeError, DTypeError, DeviceError
Tensor concat_tokens(const std::vector<Tensor>& parts);

/// Tokens first … first + count - 1 of every sequence: [N, T, C] -> [N, count, C].
///
/// @param x f32|bf16 [N, T, C]
/// @return  x itself where that is all of it
/// @grad    x; 0 in the other tokens
/// @throws  ShapeError, DTypeError, RangeError (a token beyond T, count < 1)
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
/// @param counts tokens of each of at most 16 levels; they sum to T
/// @return       x's shape and dtype
/// @grad         x, rows (f32; same bits on every run and for any thread count)
/// @throws       ShapeError, DTypeError, DeviceError
Tensor add_level_rows(const Tensor& x, const Tensor& rows, const std::vector<int64_t>& counts);

/// Tokens [first, first + count) of longer sequences and a tensor [N, count, C] or [N, H, W, C]
/// that holds them, or none.
struct TokenSpan {
  Tensor part;
  int64_t first = 0, count = 0;
};

namespace cpu {
/// Copies the parts to their places in `whole` [N, T, C]; zeros where a span has none.
void write_spans(const std::vector<TokenSpan>& spans, Tensor& whole);
/// Fills the parts from `whole`.
void read_spans(const Tensor& whole, const std::vector<TokenSpan>& spans);
void mask_tokens(const Tensor& x, const Tensor& mask, Tensor& y);
void add_level_rows_forward(const Tensor& x, const Tensor& rows, const Pyramid& levels, Tensor& y);
void add_level_rows_backward(const Tensor& dy, const Pyramid& levels, Tensor& drows);
}  // namespace cpu

namespace cuda {
void write_spans(const std::vector<TokenSpan>& spans, Tensor& whole);
void read_spans(const Tensor& whole, const std::vector<TokenSpan>& spans);
void mask_tokens(const Tensor& x, const Tensor& mask, Tensor& y);
void add_level_rows_forward(const Tensor& x, const Tensor& rows, const Pyramid& levels, Tensor& y);
void add_level_rows_backward(const Tensor& dy, const Pyramid& levels, Tensor& drows);
}  // namespace cuda

}  // namespace mixpl
