#include "core/parallel.h"
#include "core/simd.h"
#include "ops/add_product/add_product.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;

// x may be null: nothing is added.
template <typename T>
void run(const T* x, const T* a, const T* b, T* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    simd::f32x8 v = simd::load(a + i) * simd::load(b + i);
    if (x) v = simd::load(x + i) + v;
    simd::store(y + i, v);
  }
  for (; i < n; ++i) {
    const float v = float(a[i]) * float(b[i]);
    y[i] = T(x ? float(x[i]) + v : v);
  }
}

void run(const Tensor* x, const Tensor& a, const Tensor& b, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* base = x ? x->data<T>() : nullptr;
    const T *left = a.data<T>(), *right = b.data<T>();
    T* out = y.data<T>();
    parallel_chunks(y.numel(), kGrain, [=](int64_t begin, int64_t end) {
      run(base ? base + begin : nullptr, left + begin, right + begin, out + begin, end - begin);
    });
  });
}

}  // namespace

void add_product(const Tensor& x, const Tensor& a, const Tensor& b, Tensor& y) { run(&x, a, b, y); }
void product(const Tensor& a, const Tensor& b, Tensor& y) { run(nullptr, a, b, y); }

}  // namespace mixpl::cpu
