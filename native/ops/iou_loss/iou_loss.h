#pragma once

#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

struct IouLossOptions {
  IouKind kind = IouKind::giou;
  float eps = 1e-7f;  // added to every denominator
};

/// Weighted overlap loss of box pairs, summed: w (1 - IoU + penalty). The penalty is (enclosing -
/// union) / enclosing area for giou, squared distance of centres over squared enclosing diagonal
/// for diou, that plus a v for ciou (v = 4 / pi^2 * squared difference of atan(width / height); a =
/// v / (1 - IoU + v) counts as a constant).
///
/// A side with x2 < x1 counts as 0 long; a box without height has atan pi / 2, one without width or
/// height 0: every finite box has a finite loss and gradient when eps > 0. A box with a NaN has
/// NaN.
///
/// @param pred   f32 [B, 4], xyxy
/// @param target f32 [B, 4], xyxy
/// @param weight f32 [B]; 0 leaves a pair out, whatever it holds
/// @return       f32 []; a sum: the caller picks the normaliser; arithmetic in f64
/// @grad         pred; where a maximum has two equal arguments each gets half, as in torch
/// @throws       ShapeError, DTypeError, DeviceError, RangeError
/// @source       torchvision.ops.{generalized,distance,complete}_box_iou_loss; Rezatofighi et al.
///               2019, arXiv:1902.09630; Zheng et al. 2020, arXiv:1911.08287
Tensor iou_loss(const Tensor& pred, const Tensor& target, const Tensor& weight,
                const IouLossOptions& options = {});

namespace cpu {
void iou_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      const IouLossOptions& options, Tensor& loss);
void iou_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                       const Tensor& weight, const IouLossOptions& options, Tensor& dpred);
}  // namespace cpu
namespace cuda {
void iou_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      const IouLossOptions& options, Tensor& loss);
void iou_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                       const Tensor& weight, const IouLossOptions& options, Tensor& dpred);
}  // namespace cuda

}  // namespace mixpl
