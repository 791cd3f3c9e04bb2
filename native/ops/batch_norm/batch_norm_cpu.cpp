#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_math.h"

namespace mixpl::cpu {

void update_running(const NormForward& batch, double momentum, Tensor& mean, Tensor& variance) {
  const UpdateRunning update(batch, momentum, mean, variance);
  for (int64_t c = 0; c < mean.numel(); ++c) update(c);
}

}  // namespace mixpl::cpu
