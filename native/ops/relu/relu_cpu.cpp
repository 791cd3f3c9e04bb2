#include "core/parallel.h"
#include "core/simd.h"
#include "ops/relu/relu.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;
using simd::f32x8;

}  // namespace

void relu_forward(const Tensor& x, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      int64_t i = begin;
      for (; i + 8 <= end; i += 8) {
        const f32x8 v = simd::load(in + i);
        simd::store(out + i, v < 0.0f ? f32x8{} : v);
      }
      for (; i < end; ++i) out[i] = float(in[i]) < 0 ? T(0.0f) : in[i];
    });
  });
}

void relu_backward(const Tensor& y, const Tensor& dout, Tensor& dx) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *value = y.data<T>(), *in = dout.data<T>();
    T* out = dx.data<T>();
    parallel_chunks(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      int64_t i = begin;
      for (; i + 8 <= end; i += 8)
        simd::store(out + i, simd::keep(simd::load(value + i) > 0.0f, simd::load(in + i)));
      for (; i < end; ++i) out[i] = float(value[i]) > 0 ? in[i] : T(0.0f);
    });
  });
}

}  // namespace mixpl::cpu
