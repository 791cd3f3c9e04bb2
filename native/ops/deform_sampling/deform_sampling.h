#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Every channel of every cell read anew at a place of its own, bilinearly: out[n, y, x, c] =
/// values[n, y + dy, x + dx, c] with (dy, dx) = offsets[n, y, x, 2 c .. 2 c + 1]. Outside the map
/// values are 0; from a whole cell outside on (y <= -1 or y >= H, x likewise) the result is 0 and
/// has no gradient. What a deformable 1x1 convolution with one group per channel and unit weights
/// gives.
///
/// @param values  f32 [N, H, W, C]
/// @param offsets f32|bf16 [N, H, W, 2 C], cells
/// @return        f32 [N, H, W, C]; a NaN or infinite offset gives 0
/// @grad          values (the same bits on every run and for any thread count), offsets (their
///                dtype; at whole numbers that of the cell ahead)
/// @throws        ShapeError, DTypeError, DeviceError
/// @source        Dai et al. 2017, arXiv:1703.06211; as torchvision.ops.deform_conv2d
Tensor deform_sampling(const Tensor& values, const Tensor& offsets);

namespace cpu {
void deform_sampling_forward(const Tensor& values, const Tensor& offsets, Tensor& out);
/// Either gradient may be undefined.
void deform_sampling_backward(const Tensor& dout, const Tensor& values, const Tensor& offsets,
                              Tensor& dvalues, Tensor& doffsets);
}  // namespace cpu

namespace cuda {
void deform_sampling_forward(const Tensor& values, const Tensor& offsets, Tensor& out);
void deform_sampling_backward(const Tensor& dout, const Tensor& values, const Tensor& offsets,
                              Tensor& dvalues, Tensor& doffsets);
}  // namespace cuda

}  // namespace mixpl
