#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gelu/gelu.h"
#include "ops/gelu/gelu_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;
constexpr int64_t kPiece = 512;  // numbers of bf16 that are f32 for as long as they are needed

MIXPL_CPU_CLONES void forward_of(const float* __restrict x, float* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gelu_of(x[i]);
}
// dx may be dy, element by element.
MIXPL_CPU_CLONES void backward_of(const float* x, const float* dy, float* dx, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] * gelu_slope(x[i]);
}

// Conversions on their own: between them and the arithmetic GCC's vectors take twice the time.
void forward_of(const bfloat16* x, bfloat16* y, int64_t n) {
  float in[kPiece], out[kPiece];
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t count = std::min(kPiece, n - i);
    simd::scale(x + i, 1, in, count);
    forward_of(in, out, count);
    simd::scale(out, 1, y + i, count);
  }
}
void backward_of(const bfloat16* x, const bfloat16* dy, bfloat16* dx, int64_t n) {
  float at[kPiece], slope[kPiece];
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t count = std::min(kPiece, n - i);
    simd::scale(x + i, 1, at, count);
    simd::scale(dy + i, 1, slope, count);
    backward_of(at, slope, slope, count);
    simd::scale(slope, 1, dx + i, count);
  }
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
