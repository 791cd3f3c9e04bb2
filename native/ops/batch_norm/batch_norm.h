#pragma once

#include "core/tensor.h"

namespace mixpl {

struct BatchNormOptions {
  float eps = 1e-5f;
  float momentum = 0.1f;  // weight of the new statistics in the running ones
  bool relu = false;
};

/// Batch normalisation that trains: (x - mean) / sqrt(var + eps) * gamma + beta per channel, then
/// + residual, then ReLU, where asked. While Context::training, the statistics are those of x
/// (biased variance) and running = (1 - momentum) * running + momentum * batch, with the unbiased
/// variance; otherwise they are the running ones. Frozen normalisation is ops/fold_batch_norm.
///
/// @param x            f32|bf16 [N, ..., C], channels last
/// @param gamma        f32 [C]
/// @param beta         f32 [C]
/// @param running_mean f32 [C], written while training
/// @param running_var  f32 [C], written while training
/// @param residual     as x, or undefined
/// @param owners       i32 [N] on a device, or undefined: a row of x with a number below 0 is an
/// empty
///                     place of a list (detect/regions.h). While training it counts for no
///                     statistic, may be written over in x, and has gradient 0; its output is
///                     finite and must have gradient 0. If all are empty, nothing changes
/// @return             as x; statistics and sums are f32 or wider; an empty x changes nothing
/// @grad               x, gamma, beta, residual; same bits on every run and for any thread count
/// @throws             ShapeError (also for one value per channel while training, which has no
///                     variance), DTypeError, DeviceError, RangeError
/// @source             Ioffe and Szegedy 2015, arXiv:1502.03167; as torch.nn.functional.batch_norm
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, const BatchNormOptions& options = {},
                  const Tensor& residual = {}, const Tensor& owners = {});

struct NormForward;

namespace cpu {
/// running = (1 - momentum) * running + momentum * batch, from mean and variance (in batch.rstd).
void update_running(const NormForward& batch, double momentum, Tensor& mean, Tensor& variance);
}  // namespace cpu

namespace cuda {
void update_running(const NormForward& batch, double momentum, Tensor& mean, Tensor& variance);
}  // namespace cuda

}  // namespace mixpl
