#include "core/parallel.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/l1_loss/l1_loss_math.h"

namespace mixpl::cpu {

void smooth_l1_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                            float beta, Tensor& loss) {
  const float *t = target.data<float>(), *w = weight.data<float>();
  dispatch_floating(pred.dtype(), [&](auto tag) {
    const auto* x = pred.data<decltype(tag)>();
    *loss.data<float>() = static_cast<float>(parallel_sum(weight.numel(), [&](int64_t b) {
      double sum = 0;
      if (w[b] == 0) return sum;
      for (int64_t i = 4 * b; i < 4 * b + 4; ++i)
        sum += smooth_l1_term(float(x[i]) - t[i], beta).loss;
      return w[b] * sum;
    }));
  });
}

void smooth_l1_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                             const Tensor& weight, float beta, Tensor& dpred) {
  const float scale = *dloss.data<float>();
  const float *t = target.data<float>(), *w = weight.data<float>();
  dispatch_floating(pred.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = pred.data<T>();
    T* out = dpred.data<T>();
    parallel_for(weight.numel(), [&](int64_t b) {
      for (int64_t i = 4 * b; i < 4 * b + 4; ++i)
        out[i] =
            T(w[b] == 0 ? 0.0f : scale * w[b] * smooth_l1_term(float(x[i]) - t[i], beta).slope);
    });
  });
}

}  // namespace mixpl::cpu
