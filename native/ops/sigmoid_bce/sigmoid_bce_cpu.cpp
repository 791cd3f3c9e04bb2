#include "core/parallel.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"
#include "ops/sigmoid_bce/sigmoid_bce_math.h"

namespace mixpl::cpu {

void sigmoid_bce_forward(const Tensor& logits, const Tensor& target, const Tensor& weight,
                         Tensor& loss) {
  const float *t = target.data<float>(), *w = weight.data<float>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    const auto* x = logits.data<decltype(tag)>();
    *loss.data<float>() = static_cast<float>(parallel_sum(weight.numel(), [&](int64_t i) {
      return w[i] == 0 ? 0.0 : double(w[i]) * sigmoid_bce_term(float(x[i]), t[i]).loss;
    }));
  });
}

void sigmoid_bce_backward(const Tensor& dloss, const Tensor& logits, const Tensor& target,
                          const Tensor& weight, Tensor& dlogits) {
  const float scale = *dloss.data<float>();
  const float *t = target.data<float>(), *w = weight.data<float>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    T* out = dlogits.data<T>();
    parallel_for(weight.numel(), [&](int64_t i) {
      out[i] = T(w[i] == 0 ? 0.0f : scale * w[i] * sigmoid_bce_term(float(x[i]), t[i]).slope);
    });
  });
}

}  // namespace mixpl::cpu
