#include "core/cuda/kernel.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_math.h"

namespace mixpl::cuda {

void update_running(const NormForward& batch, double momentum, Tensor& mean, Tensor& variance) {
  for_each(mean.numel(), UpdateRunning(batch, momentum, mean, variance));
}

}  // namespace mixpl::cuda
