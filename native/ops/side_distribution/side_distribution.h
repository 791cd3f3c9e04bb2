// Distances to the sides of a box as distributions over bins (generalised focal loss).
#pragma once

#include "core/tensor.h"

namespace mixpl {

/// The expected distance of each side: sum over the bins of softmax(logits)_j values_j.
///
/// @param logits f32 [P, 4 B]: bins of left, of top, of right, of bottom
/// @param values f32 [B], B >= 2: the distance that a bin stands for
/// @return       f32 [P, 4], in the unit of values; arithmetic in f64
/// @grad         logits
/// @throws       ShapeError, DTypeError, DeviceError
/// @source       Li et al. 2020, arXiv:2006.04388, eq. 4; mmdetection Integral
Tensor expected_sides(const Tensor& logits, const Tensor& values);

/// Distribution focal loss, summed over boxes and sides: w (-(i + 1 - y) ln s_i - (y - i) ln s_i+1)
/// with s = softmax over the bins of a side, y its distance in bins and i = floor(y), B - 2 at
/// most.
///
/// @param logits f32 [P, 4 B], B >= 2
/// @param sides  f32 [P, 4], the wanted distances, held in [0, B - 1]
/// @param weight f32 [P]; 0 leaves a box out, whatever it holds
/// @return       f32 [], nats; a sum: the caller picks the normaliser; arithmetic in f64
/// @grad         logits
/// @throws       ShapeError, DTypeError, DeviceError
/// @source       Li et al. 2020, arXiv:2006.04388, eq. 6; mmdetection DistributionFocalLoss
Tensor distribution_focal_loss(const Tensor& logits, const Tensor& sides, const Tensor& weight);

namespace cpu {
void expected_sides_forward(const Tensor& logits, const Tensor& values, Tensor& sides);
void expected_sides_backward(const Tensor& dsides, const Tensor& logits, const Tensor& values,
                             Tensor& dlogits);
void distribution_focal_loss_forward(const Tensor& logits, const Tensor& sides,
                                     const Tensor& weight, Tensor& loss);
void distribution_focal_loss_backward(const Tensor& dloss, const Tensor& logits,
                                      const Tensor& sides, const Tensor& weight, Tensor& dlogits);
}  // namespace cpu
namespace cuda {
void expected_sides_forward(const Tensor& logits, const Tensor& values, Tensor& sides);
void expected_sides_backward(const Tensor& dsides, const Tensor& logits, const Tensor& values,
                             Tensor& dlogits);
void distribution_focal_loss_forward(const Tensor& logits, const Tensor& sides,
                                     const Tensor& weight, Tensor& loss);
void distribution_focal_loss_backward(const Tensor& dloss, const Tensor& logits,
                                      const Tensor& sides, const Tensor& weight, Tensor& dlogits);
}  // namespace cuda

}  // namespace mixpl
