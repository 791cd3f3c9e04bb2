#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_math.h"

namespace mixpl::cpu {

void update_running(const Tensor& batch, double factor, double momentum, Tensor& running) {
  const float* b = batch.data<float>();
  float* r = running.data<float>();
  for (int64_t c = 0; c < running.numel(); ++c)
    r[c] = moved_average(r[c], b[c], factor, momentum);
}

}  // namespace mixpl::cpu
