#include "core/math.h"
#include "core/parallel.h"
#include "ops/scaled_exp/scaled_exp.h"

namespace mixpl::cpu {

void scaled_exp_forward(const Tensor& x, const Tensor& scale, Tensor& y) {
  const float s = *scale.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    const auto* in = x.data<decltype(tag)>();
    float* out = y.data<float>();
    parallel_for(x.numel(), [=](int64_t i) { out[i] = s * exp_f32(float(in[i])); });
  });
}

void scaled_exp_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                         Tensor& dscale) {
  const float s = *scale.data<float>();
  const float* d = dy.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    if (dx.defined()) {
      T* out = dx.data<T>();
      parallel_for(x.numel(), [=](int64_t i) { out[i] = T(d[i] * s * exp_f32(float(in[i]))); });
    }
    if (dscale.defined())
      *dscale.data<float>() = static_cast<float>(
          parallel_sum(x.numel(), [=](int64_t i) { return double(d[i]) * exp_f32(float(in[i])); }));
  });
}

}  // namespace mixpl::cpu
