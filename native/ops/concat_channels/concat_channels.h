#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// The tensors side by side along their last axis.
///
/// @param parts f32|bf16 [..., C_i], one at least, of one dtype and equal but for the last axis
/// @return      [..., C_0 + C_1 + ...]
/// @grad        every part: its channels of the incoming gradient
/// @throws      ShapeError, DTypeError, DeviceError
Tensor concat_channels(const std::vector<Tensor>& parts);

namespace cpu {
/// Copies `part` [..., c] to the channels [first, first + c) of `whole`.
void put_channels(const Tensor& part, int64_t first, Tensor& whole);
/// Copies the channels [first, first + c) of `whole` to `part` [..., c].
void take_channels(const Tensor& whole, int64_t first, Tensor& part);
}  // namespace cpu

namespace cuda {
void put_channels(const Tensor& part, int64_t first, Tensor& whole);
void take_channels(const Tensor& whole, int64_t first, Tensor& part);
}  // namespace cuda

}  // namespace mixpl
