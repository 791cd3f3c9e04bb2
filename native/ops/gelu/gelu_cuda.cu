#include <type_traits>

#include "core/cuda/approximations.h"
#include "core/cuda/packs.h"
#include "ops/gelu/gelu.h"
#include "ops/gelu/gelu_math.h"

namespace mixpl::cuda {
namespace {

// For results of 8 bits, as the exact tail would take more time than memory does: a polynomial of
// 6e-6 relative and the hardware's exponential and reciprocal.
MIXPL_DEVICE NormalTail approximate_tail(float a) {
  const float t = approximate_reciprocal(fmaf(a, 0.305f, 1.0f));
  float p = -0.0757894889f;
  p = fmaf(p, t, 0.198355705f);
  p = fmaf(p, t, -0.00026632857f);
  p = fmaf(p, t, 0.138586432f);
  p = fmaf(p, t, 0.117154919f);
  p = fmaf(p, t, 0.121961631f);
  const float e = approximate_exp2(a * a * -0.721347520f);  // -1 / (2 ln 2)
  return {e * (t * p), e * 0.398942280f};
}

template <typename T>
MIXPL_DEVICE NormalTail tail_for(float a) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return approximate_tail(a);
  else
    return normal_tail(a);
}

template <typename T>
struct Forward {
  const T* x;
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float at = float(v[n]), a = tail_distance(at);
      v[n] = T(gelu_from_tail(at, a, tail_for<T>(a)));
    }
    store_vec(y + i, v);
  }
};

template <typename T>
struct Backward {
  const T *x, *dy;
  T* dx;  // may be dy
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    const Vec<T, N> v = load_vec<T, N>(x + i);
    Vec<T, N> g = load_vec<T, N>(dy + i);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float at = float(v[n]), a = tail_distance(at);
      g[n] = T(float(g[n]) * gelu_slope_from_tail(at, a, tail_for<T>(a)));
    }
    store_vec(dx + i, g);
  }
};

}  // namespace

void gelu_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(), Forward<T>{x.data<T>(), y.data<T>()});
  });
}

void gelu_backward(const Tensor& x, const Tensor& dy, Tensor& dx) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(), Backward<T>{x.data<T>(), dy.data<T>(), dx.data<T>()});
  });
}

}  // namespace mixpl::cuda
