#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

struct MapSize {
  int64_t height = 0, width = 0;
};

/// Multi-scale deformable attention: every query and head sums P bilinear samples of each of L
/// maps, weighted by a softmax over all L P of them.
///
/// Sample p of level l lies at r + offset / (w_l, h_l) for references of two numbers r = (x, y), at
/// r + offset / P * (w, h) / 2 for references (x, y, w, h), in shares of the map; r and (w, h) are
/// the reference times the level's ratio. Its pixel is share * size - 0.5 (align_corners = false);
/// cells outside the map are 0.
///
/// @param value      f32|bf16 [N, S, M * D]: maps row by row, level after level, S = sum h_l w_l
/// @param maps       sizes of the L levels, at most 8
/// @param offsets    f32|bf16 [N, Q, M * L * P * 2], head, level, point, (x, y); L P at most 384
/// @param logits     offsets' dtype [N, Q, M * L * P], of the softmax
/// @param references f32 [N, Q, 2 | 4], shares of the picture without its padding
/// @param ratios     f32 [N, L, 2], (x, y): shares of the padded map that the picture fills
/// @param heads      M
/// @return           value's dtype [N, Q, M * D]; softmax, places and sums in f32. A place that is
///                   not finite gives 0
/// @grad             value, offsets, logits (their dtype), references (f32); same bits on every run
///                   and for any thread count. Of a place that is not finite it is 0, at whole
///                   pixels that of the cell ahead. On a GPU value's is summed in fixed point, some
///                   27 bits below the largest gradient of the image and head, and all NaN where
///                   one of these, or a weight, is not finite
/// @throws           ShapeError, DTypeError, DeviceError, RangeError
/// @source           Zhu et al. 2021, arXiv:2010.04159; places as mmcv's
/// MultiScaleDeformableAttention
Tensor deformable_attention(const Tensor& value, const std::vector<MapSize>& maps,
                            const Tensor& offsets, const Tensor& logits, const Tensor& references,
                            const Tensor& ratios, int64_t heads);

/// What the gradients are of; those that nobody wants are undefined.
struct DeformableAttentionGradients {
  Tensor value, offsets, logits, references;
};

namespace cpu {
void deformable_attention_forward(const Tensor& value, const std::vector<MapSize>& maps,
                                  const Tensor& offsets, const Tensor& logits,
                                  const Tensor& references, const Tensor& ratios, int64_t heads,
                                  Tensor& out);
void deformable_attention_backward(const Tensor& dout, const Tensor& value,
                                   const std::vector<MapSize>& maps, const Tensor& offsets,
                                   const Tensor& logits, const Tensor& references,
                                   const Tensor& ratios, int64_t heads,
                                   DeformableAttentionGradients& grads);
}  // namespace cpu

namespace cuda {
void deformable_attention_forward(const Tensor& value, const std::vector<MapSize>& maps,
                                  const Tensor& offsets, const Tensor& logits,
                                  const Tensor& references, const Tensor& ratios, int64_t heads,
                                  Tensor& out);
void deformable_attention_backward(const Tensor& dout, const Tensor& value,
                                   const std::vector<MapSize>& maps, const Tensor& offsets,
                                   const Tensor& logits, const Tensor& references,
                                   const Tensor& ratios, int64_t heads,
                                   DeformableAttentionGradients& grads);
}  // namespace cuda

}  // namespace mixpl
