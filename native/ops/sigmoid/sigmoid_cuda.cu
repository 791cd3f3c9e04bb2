#include "core/cuda/packs.h"
#include "ops/sigmoid/sigmoid.h"
#include "ops/sigmoid/sigmoid_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Forward {
  const T* x;
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    for (int n = 0; n < N; ++n) v[n] = T(sigmoid_of(float(v[n])));
    store_vec(y + i, v);
  }
};

template <typename T>
struct Backward {
  const T *x, *dy;
  T* dx;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    const Vec<T, N> v = load_vec<T, N>(x + i);
    Vec<T, N> g = load_vec<T, N>(dy + i);
    for (int n = 0; n < N; ++n) g[n] = T(float(g[n]) * sigmoid_slope(float(v[n])));
    store_vec(dx + i, g);
  }
};

}  // namespace

void sigmoid_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(), Forward<T>{x.data<T>(), y.data<T>()});
  });
}

void sigmoid_backward(const Tensor& x, const Tensor& dy, Tensor& dx) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(),
                                 Backward<T>{x.data<T>(), dy.data<T>(), dx.data<T>()});
  });
}

}  // namespace mixpl::cuda
