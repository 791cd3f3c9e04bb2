// The arithmetic of batch_norm beyond that of channel_norm, once for both devices.
#pragma once

#include "core/launch.h"
#include "ops/channel_norm/channel_norm.h"

namespace mixpl {

/// Moves the running statistics of one channel towards those of the batch.
struct UpdateRunning {
  const float *batch_mean, *batch_variance;
  int64_t pixels;
  const float* counted;  // pixels that count, null: all
  double momentum;
  float *mean, *variance;

  UpdateRunning(const NormForward& batch, double momentum, Tensor& mean, Tensor& variance)
      : batch_mean(batch.mean.data<float>()),
        batch_variance(batch.rstd.data<float>()),
        pixels(batch.view.pixels),
        counted(batch.count.defined() ? batch.count.data<float>() : nullptr),
        momentum(momentum),
        mean(mean.data<float>()),
        variance(variance.data<float>()) {}

  MIXPL_HD void operator()(int64_t c) const {
    const double count = counted ? double(counted[0]) : double(pixels);
    if (count < 2) return;  // no variance
    mean[c] = moved(mean[c], batch_mean[c], 1);
    variance[c] = moved(variance[c], batch_variance[c], count / (count - 1));
  }
  MIXPL_HD float moved(float running, float batch, double factor) const {
    return static_cast<float>((1 - momentum) * running + momentum * factor * batch);
  }
};

}  // namespace mixpl
