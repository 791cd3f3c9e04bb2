#pragma once

#include "core/tensor.h"

namespace mixpl {

/// Square windows over a map that is padded with zeros below and to the right up to whole windows,
/// and rolled up and to the left by `shift` cells before it is cut.
struct WindowOptions {
  int64_t size = 7;   // cells of a side, in [1, 64]
  int64_t shift = 0;  // in [0, size)
};

/// The windows of maps as sequences of tokens, row by row: image after image, and there row by row.
///
/// @param x f32|bf16 [N, H, W, C]
/// @return  x's dtype [N R S, size^2, C], R = ceil(H / size) and S = ceil(W / size) windows
/// @grad    x, in its dtype
/// @throws  ShapeError, DTypeError, RangeError
/// @source  Liu et al. 2021, arXiv:2103.14030, sections 3.1 and 3.2; mmdetection's ShiftWindowMSA,
/// which
///          shifts whatever the map's size, too
Tensor window_partition(const Tensor& x, const WindowOptions& options);

/// The map that window_partition would cut into these windows, without the padding; with a residual
/// the sum of both, in one pass.
///
/// @param windows  f32|bf16 [N R S, size^2, C]
/// @param height, width of the map: H, W
/// @param residual windows' dtype [N, H, W, C], or undefined
/// @return         windows' dtype [N, H, W, C]; sums in f32
/// @grad           windows (0 in the padding) and residual, in their dtype
/// @throws         ShapeError, DTypeError, DeviceError, RangeError
Tensor window_merge(const Tensor& windows, int64_t height, int64_t width,
                    const WindowOptions& options, const Tensor& residual = {});

/// Which tokens of a window do not see each other, because rolling brought them together from
/// opposite sides of the map: a mask for attention over the windows of any number of images.
///
/// @return u8 [R S, size^2, size^2], 1 where they do not; undefined where the shift is 0, as all
/// do.
///         (Swin adds -100 to their scores.)
/// @throws RangeError
Tensor window_mask(int64_t height, int64_t width, const WindowOptions& options, Device device);

/// A call, its arguments checked.
struct WindowCall {
  int64_t images, height, width, channels;
  WindowOptions options;
};

namespace cpu {
void window_partition(const WindowCall& call, const Tensor& x, Tensor& windows);
void window_merge(const WindowCall& call, const Tensor& windows, const Tensor& residual, Tensor& y);
void window_mask(const WindowCall& call, Tensor& mask);
}  // namespace cpu
namespace cuda {
void window_partition(const WindowCall& call, const Tensor& x, Tensor& windows);
void window_merge(const WindowCall& call, const Tensor& windows, const Tensor& residual, Tensor& y);
void window_mask(const WindowCall& call, Tensor& mask);
}  // namespace cuda

}  // namespace mixpl
