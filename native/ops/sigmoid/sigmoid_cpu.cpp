#include "core/parallel.h"
#include "core/simd.h"
#include "ops/sigmoid/sigmoid.h"
#include "ops/sigmoid/sigmoid_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;

template <typename T>
MIXPL_CPU_CLONES void forward_of(const T* x, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(sigmoid_of(float(x[i])));
}

}  // namespace

void sigmoid_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
      forward_of(in + begin, out + begin, end - begin);
    });
  });
}

void sigmoid_backward(const Tensor& x, const Tensor& dy, Tensor& dx) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *at = x.data<T>(), *in = dy.data<T>();
    T* out = dx.data<T>();
    parallel_for(x.numel(), kGrain,
                 [=](int64_t i) { out[i] = T(float(in[i]) * sigmoid_slope(float(at[i]))); });
  });
}

}  // namespace mixpl::cpu
