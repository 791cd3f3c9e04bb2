#include "core/cuda/kernel.h"
#include "ops/batch_norm/batch_norm.h"
#include "ops/batch_norm/batch_norm_math.h"

namespace mixpl::cuda {
namespace {

struct UpdateRunning {
  const float* batch;
  float* running;
  double factor, momentum;
  MIXPL_DEVICE void operator()(int64_t c) const {
    running[c] = moved_average(running[c], batch[c], factor, momentum);
  }
};

}  // namespace

void update_running(const Tensor& batch, double factor, double momentum, Tensor& running) {
  for_each(running.numel(),
           UpdateRunning{batch.data<float>(), running.data<float>(), factor, momentum});
}

}  // namespace mixpl::cuda
