#include "core/cuda/packs.h"
#include "ops/add_product/add_product.h"

namespace mixpl::cuda {
namespace {

template <typename T, bool kAdds>
struct Product {
  const T *x, *a, *b;  // x only where it is added
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    const Vec<T, N> left = load_vec<T, N>(a + i), right = load_vec<T, N>(b + i);
    Vec<T, N> v = {};
    if constexpr (kAdds) v = load_vec<T, N>(x + i);
#pragma unroll
    for (int n = 0; n < N; ++n) v[n] = T(fmaf(float(left[n]), float(right[n]), float(v[n])));
    store_vec(y + i, v);
  }
};

}  // namespace

void add_product(const Tensor& x, const Tensor& a, const Tensor& b, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(
        y.numel(), Product<T, true>{x.data<T>(), a.data<T>(), b.data<T>(), y.data<T>()});
  });
}

void product(const Tensor& a, const Tensor& b, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(y.numel(),
                                 Product<T, false>{nullptr, a.data<T>(), b.data<T>(), y.data<T>()});
  });
}

}  // namespace mixpl::cuda
