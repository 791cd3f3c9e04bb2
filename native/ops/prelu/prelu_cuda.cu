#include "core/cuda/packs.h"
#include "ops/prelu/prelu.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Forward {
  const T* x;
  const float* slope;
  T* y;
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    const float s = *slope;
#pragma unroll
    for (int n = 0; n < N; ++n) v[n] = float(v[n]) > 0.0f ? v[n] : T(float(v[n]) * s);
    store_vec(y + i, v);
  }
};

template <typename T>
struct Backward {
  const T *x, *dy;
  float slope;
  T* dx;  // null: not wanted; may be dy

  /// Writes the gradient of x and returns what the slope gets from these values.
  template <int N>
  MIXPL_DEVICE float values(int64_t i) const {
    const Vec<T, N> v = load_vec<T, N>(x + i);
    Vec<T, N> d = load_vec<T, N>(dy + i);
    float sum = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      if (float(v[n]) > 0.0f) continue;
      sum = fmaf(float(v[n]), float(d[n]), sum);
      d[n] = T(float(d[n]) * slope);
    }
    if (dx) store_vec(dx + i, d);
    return sum;
  }
};

constexpr int kPacks = 4;  // of a thread

// One pass for both gradients: a block a chunk, whose share of the slope's is partial[block].
template <typename T>
MIXPL_KERNEL __launch_bounds__(kReduceThreads)
    backward_kernel(int64_t n, const T* x, const float* slope, const T* dy, T* dx,
                    double* partial) {
  constexpr int N = kVecWidth<T>;
  const Backward<T> values{x, dy, *slope, dx};
  const int64_t packs = n / N, begin = int64_t{blockIdx.x} * kPacks * kReduceThreads;
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int64_t pack = begin + k * kReduceThreads + threadIdx.x;
    if (pack < packs) sum += values.template values<N>(pack * N);
  }
  if (blockIdx.x + 1 == gridDim.x) {  // what fills no pack
    const int64_t rest = packs * N + threadIdx.x;
    if (rest < n) sum += values.template values<1>(rest);
  }
  if (!partial) return;
  const double total = block_sum(double(sum));
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

}  // namespace

void prelu_forward(const Tensor& x, const Tensor& slope, Tensor& y) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_all_values<kVecWidth<T>>(x.numel(),
                                 Forward<T>{x.data<T>(), slope.data<float>(), y.data<T>()});
  });
}

void prelu_backward(const Tensor& x, const Tensor& slope, const Tensor& dy, Tensor& dx,
                    Tensor& dslope) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    constexpr int64_t kChunk = int64_t{kPacks} * kReduceThreads * kVecWidth<T>;
    const int64_t chunks = (x.numel() + kChunk - 1) / kChunk;
    Tensor partial;
    if (dslope.defined()) partial = scratch(chunks * static_cast<int64_t>(sizeof(double)));
    auto* sums = dslope.defined() ? reinterpret_cast<double*>(partial.raw()) : nullptr;
    launch(backward_kernel<T>, index_of(chunks), kReduceThreads, 0, x.numel(), x.data<T>(),
           slope.data<float>(), dy.data<T>(), dx.defined() ? dx.data<T>() : nullptr, sums);
    if (dslope.defined())
      launch(reduce_partials_kernel<>, 1, kReduceThreads, 0, chunks, sums, dslope.data<float>(),
             1.0f);
  });
}

}  // namespace mixpl::cuda
