#pragma once

#include "core/tensor.h"

namespace mixpl {

/// The encoding of a box's centre as DAB-DETR compares it with keys: scaled by the content of the
/// query, and drawn out in y and x by how its width and height compare with those the content asks
/// for (width and height modulated attention).
///
/// Channel c of the result is encoding[c] scale[c] sigmoid(sizes[1]) / h in the first half, which
/// is y's, and encoding[c] scale[c] sigmoid(sizes[0]) / w in the second, x's.
///
/// @param encoding f32|bf16 [N, Q, 2 C], C even: coordinate_encoding (yxwh) of the boxes, whose
///                 first C channels count
/// @param sizes    encoding's dtype [N, Q, 2]: width and height asked for, as logits
/// @param boxes    f32 [N, Q, 4] (cx, cy, w, h) in shares of the picture; a side of 0 gives what
///                 IEEE 754 says
/// @param scale    encoding's dtype [N, Q, C]; undefined: 1 (of the first layer, without content)
/// @return         encoding's dtype [N, Q, C]
/// @grad           encoding (0 in the channels that do not count), sizes, boxes (f32; 0 for cx and
///                 cy), scale
/// @throws         ShapeError, DTypeError, DeviceError
/// @source         Liu et al. 2022, arXiv:2201.12329, sections 4.2 to 4.4; mmdetection's
///                 DABDetrTransformerDecoder
Tensor modulated_encoding(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                          const Tensor& scale = {});

/// Gradients that are undefined are not wanted.
struct ModulatedEncodingGradients {
  Tensor dencoding, dsizes, dboxes, dscale;
};

namespace cpu {
void modulated_encoding_forward(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                                const Tensor& scale, Tensor& y);
void modulated_encoding_backward(const Tensor& dy, const Tensor& encoding, const Tensor& sizes,
                                 const Tensor& boxes, const Tensor& scale,
                                 ModulatedEncodingGradients& gradients);
}  // namespace cpu
namespace cuda {
void modulated_encoding_forward(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                                const Tensor& scale, Tensor& y);
void modulated_encoding_backward(const Tensor& dy, const Tensor& encoding, const Tensor& sizes,
                                 const Tensor& boxes, const Tensor& scale,
                                 ModulatedEncodingGradients& gradients);
}  // namespace cuda

}  // namespace mixpl
