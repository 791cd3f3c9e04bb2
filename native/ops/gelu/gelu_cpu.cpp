#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gelu/gelu.h"
#include "ops/gelu/gelu_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;

template <typename T>
MIXPL_CPU_CLONES void forward_of(const T* __restrict x, T* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(gelu_of(float(x[i])));
}

// dx may be dy, element by element.
template <typename T>
MIXPL_CPU_CLONES void backward_of(const T* x, const T* dy, T* dx, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dx[i] = T(float(dy[i]) * gelu_slope(float(x[i])));
}

}  // namespace

void gelu_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
      forward_of(in + begin, out + begin, end - begin);
    });
  });
}

void gelu_backward(const Tensor& x, const Tensor& dy, Tensor& dx) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *at = x.data<T>(), *in = dy.data<T>();
    T* out = dx.data<T>();
    parallel_chunks(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
      backward_of(at + begin, in + begin, out + begin, end - begin);
    });
  });
}

}  // namespace mixpl::cpu
