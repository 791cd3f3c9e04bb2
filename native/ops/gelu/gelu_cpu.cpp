#include <algorithm>
#include <bit>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/gelu/gelu.h"
#include "ops/gelu/gelu_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;

MIXPL_CPU_CLONES void forward_of(const float* __restrict x, float* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = gelu_of(x[i]);
}
// dx may be dy, element by element.
MIXPL_CPU_CLONES void backward_of(const float* x, const float* dy, float* dx, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] * gelu_slope(x[i]);
}

// GELU and its slope of every bf16, by its bits. Of the 65,536 some 2,500 lie near zero, where
// activations do: those stay in the first cache, and a look takes less than the arithmetic.
struct Tables {
  std::vector<bfloat16> value;
  std::vector<float> slope;
  Tables() : value(1 << 16), slope(1 << 16) {
    for (size_t bits = 0; bits < value.size(); ++bits) {
      const float x = std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
      value[bits] = bfloat16(gelu_of(x));
      slope[bits] = gelu_slope(x);
    }
  }
};
const Tables& tables() {
  static const Tables once;
  return once;
}

void forward_of(const bfloat16* x, bfloat16* y, int64_t n) {
  const bfloat16* value = tables().value.data();
  for (int64_t i = 0; i < n; ++i) y[i] = value[x[i].bits];
}
void backward_of(const bfloat16* x, const bfloat16* dy, bfloat16* dx, int64_t n) {
  constexpr int64_t kPiece = 512;  // slopes beside each other, for registers
  const float* slope = tables().slope.data();
  float at[kPiece];
  for (int64_t first = 0; first < n; first += kPiece) {
    const int64_t count = std::min(kPiece, n - first);
    for (int64_t i = 0; i < count; ++i) at[i] = slope[x[first + i].bits];
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      simd::store(dx + first + i, simd::load(dy + first + i) * simd::load(at + i));
    for (; i < count; ++i) dx[first + i] = bfloat16(float(dy[first + i]) * at[i]);
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
