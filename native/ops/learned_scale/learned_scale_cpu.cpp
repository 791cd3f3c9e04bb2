#include "ops/learned_scale/learned_scale.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace mixpl::cpu {

void learned_scale_forward(const Tensor& x, const Tensor& scale, Tensor& y) {
  const float s = scale.item();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
      simd::scale(in + begin, s, out + begin, end - begin);
    });
  });
}

void learned_scale_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                            Tensor& dscale) {
  learned_scale_forward(dy, scale, dx);
  dispatch_floating(x.dtype(), [&](auto tag) {
    const auto *in = x.data<decltype(tag)>(), *d = dy.data<decltype(tag)>();
    *dscale.data<float>() = static_cast<float>(
        parallel_sum(x.numel(), [&](int64_t i) { return double(float(in[i])) * float(d[i]); }));
  });
}

}  // namespace mixpl::cpu
