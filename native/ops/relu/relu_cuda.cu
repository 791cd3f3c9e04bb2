#include "core/cuda/packs.h"
#include "ops/relu/relu.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Relu {
  const T* x;
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    for (int n = 0; n < N; ++n)
      if (float(v[n]) < 0.0f) v[n] = T(0.0f);
    store_vec(y + i, v);
  }
};

template <typename T>
struct ReluGradient {
  const T *y, *dout;
  T* dx;  // may be dout
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    const Vec<T, N> value = load_vec<T, N>(y + i);
    Vec<T, N> g = load_vec<T, N>(dout + i);
    for (int n = 0; n < N; ++n)
      if (!(float(value[n]) > 0.0f)) g[n] = T(0.0f);
    store_vec(dx + i, g);
  }
};

}  // namespace

void relu_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(), Relu<T>{x.data<T>(), y.data<T>()});
  });
}

void relu_backward(const Tensor& y, const Tensor& dout, Tensor& dx) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(y.numel(),
                                 ReluGradient<T>{y.data<T>(), dout.data<T>(), dx.data<T>()});
  });
}

}  // namespace mixpl::cuda
