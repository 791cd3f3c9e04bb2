#include "ops/batch_norm/batch_norm.h"

namespace mixpl::cpu {

void update_running(const Tensor& batch, double factor, double momentum, Tensor& running) {
  const float* b = batch.data<float>();
  float* r = running.data<float>();
  for (int64_t c = 0; c < running.numel(); ++c)
    r[c] = static_cast<float>((1 - momentum) * r[c] + momentum * factor * b[c]);
}

}  // namespace mixpl::cpu
