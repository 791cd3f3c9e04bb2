#include "core/cuda/packs.h"
#include "core/math.h"
#include "ops/scaled_exp/scaled_exp.h"

namespace mixpl::cuda {
namespace {

constexpr int kPack = 4;  // 16 bytes of the f32 tensors

template <typename T>
struct Forward {
  const T* x;
  const float* scale;
  float* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    const Vec<T, N> v = load_vec<T, N>(x + i);
    Vec<float, N> out;
    for (int n = 0; n < N; ++n) out[n] = *scale * exp_f32(float(v[n]));
    store_vec(y + i, out);
  }
};

template <typename T>
struct Backward {
  const float *dy, *scale;
  const T* x;
  T* dx;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    const Vec<float, N> g = load_vec<float, N>(dy + i);
    for (int n = 0; n < N; ++n) v[n] = T(g[n] * *scale * exp_f32(float(v[n])));
    store_vec(dx + i, v);
  }
};

template <typename T>
struct ScaleGradient {
  const float* dy;
  const T* x;
  MIXPL_DEVICE float operator()(int64_t i) const { return dy[i] * exp_f32(float(x[i])); }
};

}  // namespace

void scaled_exp_forward(const Tensor& x, const Tensor& scale, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kPack>(x.numel(),
                          Forward<T>{x.data<T>(), scale.data<float>(), y.data<float>()});
  });
}

void scaled_exp_backward(const Tensor& dy, const Tensor& x, const Tensor& scale, Tensor& dx,
                         Tensor& dscale) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const float* g = dy.data<float>();
    if (dx.defined())
      for_all_values<kPack>(x.numel(),
                            Backward<T>{g, scale.data<float>(), x.data<T>(), dx.data<T>()});
    if (dscale.defined())
      reduce_sum(x.numel(), ScaleGradient<T>{g, x.data<T>()}, dscale.data<float>());
  });
}

}  // namespace mixpl::cuda
