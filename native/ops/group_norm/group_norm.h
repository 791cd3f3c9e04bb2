#pragma once

#include "core/tensor.h"

namespace mixpl {

struct GroupNormOptions {
  int groups = 32;
  float eps = 1e-5f;
  bool relu = false;
};

/// Group normalisation: (x - mean) / sqrt(var + eps) * gamma + beta, statistics per image and group
/// of C / groups neighbouring channels (biased variance); then + residual, then ReLU, where asked.
///
/// @param x        f32|bf16 [N, ..., C], channels last
/// @param gamma    f32 [C]
/// @param beta     f32 [C]
/// @param options  groups >= 1 divides C; eps >= 0
/// @param residual as x, or undefined
/// @return         as x; statistics and sums are f32 or wider
/// @grad           x, gamma, beta, residual; overwrites the incoming gradient where it is the only
///                 owner; same bits on every run and for any thread count
/// @throws         ShapeError, DTypeError, DeviceError, RangeError
/// @source         Wu and He 2018, arXiv:1803.08494; as torch.nn.functional.group_norm
Tensor group_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  const GroupNormOptions& options = {}, const Tensor& residual = {});

}  // namespace mixpl
