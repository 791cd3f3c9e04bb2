#include "core/cuda/packs.h"
#include "ops/learned_scale/learned_scale.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Scaled {
  const T* x;
  const float* scale;
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    for (int n = 0; n < N; ++n) v[n] = T(float(v[n]) * *scale);
    store_vec(y + i, v);
  }
};

template <typename T>
struct Product {
  const T *x, *dy;
  MIXPL_DEVICE float operator()(int64_t i) const { return float(x[i]) * float(dy[i]); }
};

}  // namespace

void learned_scale_forward(const Tensor& x, const Tensor& scale, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(),
                                 Scaled<T>{x.data<T>(), scale.data<float>(), y.data<T>()});
  });
}

void learned_scale_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                            Tensor& dscale) {
  learned_scale_forward(dy, scale, dx);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    reduce_sum(x.numel(), Product<T>{x.data<T>(), dy.data<T>()}, dscale.data<float>());
  });
}

}  // namespace mixpl::cuda
