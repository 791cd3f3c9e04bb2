#pragma once

#include <string>

#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

/// "iou", "giou", "diou" or "ciou". @throws ConfigError in the name of `op`
IouKind parse_iou_kind(const char* op, const std::string& text);

/// Similarity of every pair. Source: see box_similarity.
///
/// @param a f32 [A, 4]; b f32 [B, 4], xyxy with x1 <= x2 and y1 <= y2
/// @return  f32 [A, B]
/// @throws  ShapeError, DTypeError, DeviceError
Tensor pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind = IouKind::iou);

/// Boxes f32 [n, 4] as Box values. @throws ShapeError, DTypeError in the name of `op`
const Box* as_boxes(const char* op, const char* name, const Tensor& boxes);

namespace cpu {
void pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind, Tensor& out);
}  // namespace cpu
namespace cuda {
void pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind, Tensor& out);
}  // namespace cuda

}  // namespace mixpl
