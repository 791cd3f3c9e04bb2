#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/prelu/prelu.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

constexpr int64_t kGrain = 1 << 14;
constexpr int64_t kChunk = 8192;  // whose share of the slope's gradient one thread sums
constexpr int64_t kPiece = 512;   // that a vector of f32 sums

template <typename T>
void forward_of(const T* x, float slope, T* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const f32x8 v = simd::load(x + i);
    simd::store(y + i, simd::select(v > 0, v, v * slope));
  }
  for (; i < n; ++i) y[i] = float(x[i]) > 0 ? x[i] : T(float(x[i]) * slope);
}

// dx may be dy.
template <typename T>
void backward_of(const T* x, float slope, const T* dy, T* dx, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const f32x8 d = simd::load(dy + i);
    simd::store(dx + i, simd::select(simd::load(x + i) > 0, d, d * slope));
  }
  for (; i < n; ++i) dx[i] = float(x[i]) > 0 ? dy[i] : T(float(dy[i]) * slope);
}

// Sum of x dy where x is not positive.
template <typename T>
double share_of(const T* x, const T* dy, int64_t n) {
  double sum = 0;
  for (int64_t first = 0; first < n; first += kPiece) {
    const int64_t end = std::min(n, first + kPiece);
    f32x8 sums = {};
    int64_t i = first;
    for (; i + 8 <= end; i += 8) {
      const f32x8 v = simd::load(x + i);
      sums += simd::select(v > 0, f32x8{}, v * simd::load(dy + i));
    }
    for (int k = 0; k < 8; ++k) sum += sums[k];
    for (; i < end; ++i)
      if (!(float(x[i]) > 0)) sum += double(float(x[i])) * float(dy[i]);
  }
  return sum;
}

}  // namespace

void prelu_forward(const Tensor& x, const Tensor& slope, Tensor& y) {
  const float s = *slope.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_chunks(x.numel(), kGrain, [=](int64_t begin, int64_t end) {
      forward_of(in + begin, s, out + begin, end - begin);
    });
  });
}

void prelu_backward(const Tensor& x, const Tensor& slope, const Tensor& dy, Tensor& dx,
                    Tensor& dslope) {
  const float s = *slope.data<float>();
  const int64_t n = x.numel(), chunks = (n + kChunk - 1) / kChunk;
  const bool sums_wanted = dslope.defined();
  std::vector<double> partial(chunks, 0.0);
  double* sums = partial.data();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *d = dy.data<T>();
    T* out = dx.defined() ? dx.data<T>() : nullptr;
    parallel_for(chunks, kGrain / kChunk, [=](int64_t chunk) {
      const int64_t first = chunk * kChunk, count = std::min(kChunk, n - first);
      // First the sum: dx may be written over dy.
      if (sums_wanted) sums[chunk] = share_of(in + first, d + first, count);
      if (out) backward_of(in + first, s, d + first, out + first, count);
    });
  });
  if (!sums_wanted) return;
  double total = 0;
  for (double share : partial) total += share;
  *dslope.data<float>() = static_cast<float>(total);
}

}  // namespace mixpl::cpu
