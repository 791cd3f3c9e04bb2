#include <algorithm>
#include <type_traits>

#include "core/chunk_sums.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layer_norm/layer_norm_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

// Rows whose sums for gamma and beta are one partial sum, at least.
constexpr int64_t kRows = 32;

// One value, or eight neighbours: V says which, so that a loop body serves both.
template <typename V, typename T>
inline V get(const T* p) {
  if constexpr (std::is_same_v<V, float>)
    return float(*p);
  else
    return simd::load(p);
}
template <typename V, typename T>
inline void put(T* p, V v) {
  if constexpr (std::is_same_v<V, float>)
    *p = T(v);
  else
    simd::store(p, v);
}

// body(V{}, c) for all channels c of a row.
template <typename F>
inline void for_channels(int64_t n, F&& body) {
  int64_t c = 0;
  for (; c + 8 <= n; c += 8) body(f32x8{}, c);
  for (; c < n; ++c) body(float{}, c);
}

template <int K, typename V>
struct Terms {
  V of[K];
};

// Sums over a row of K terms that f(V{}, c) gives as Terms<K, V>; several sums at once hide the
// additions' latency, in an order that follows from n.
template <int K, typename F>
inline Terms<K, float> row_sums(int64_t n, F&& f) {
  constexpr int kUnroll = 4 / K;
  f32x8 sum[kUnroll][K] = {};
  Terms<K, float> total{};
  int64_t c = 0;
  for (; c + 8 * kUnroll <= n; c += 8 * kUnroll)
    for (int u = 0; u < kUnroll; ++u) {
      const auto terms = f(f32x8{}, c + 8 * u);
      for (int k = 0; k < K; ++k) sum[u][k] += terms.of[k];
    }
  for (; c + 8 <= n; c += 8) {
    const auto terms = f(f32x8{}, c);
    for (int k = 0; k < K; ++k) sum[0][k] += terms.of[k];
  }
  for (; c < n; ++c) {
    const auto terms = f(float{}, c);
    for (int k = 0; k < K; ++k) total.of[k] += terms.of[k];
  }
  for (int k = 0; k < K; ++k) {
    f32x8 all = sum[0][k];
    for (int u = 1; u < kUnroll; ++u) all += sum[u][k];
    for (int lane = 0; lane < 8; ++lane) total.of[k] += all[lane];
  }
  return total;
}

template <bool kResidual, typename T>
struct Row {
  const T *x, *residual;
  template <typename V>
  V at(int64_t c) const {
    V s = get<V>(x + c);
    if constexpr (kResidual) s += get<V>(residual + c);
    return s;
  }
};

template <bool kResidual, typename T>
Row<kResidual, T> row_of(const LayerNormForward& f, int64_t row) {
  const int64_t first = row * f.channels();
  return {f.x.data<T>() + first, kResidual ? f.residual.data<T>() + first : nullptr};
}

template <bool kResidual, typename T>
void forward_rows(const LayerNormForward& f, T* y, int64_t begin, int64_t end) {
  const int64_t n = f.channels();
  const float *gamma = f.gamma.data<float>(), *beta = f.beta.data<float>();
  float *means = f.mean.data<float>(), *rstds = f.rstd.data<float>();
  const float size = static_cast<float>(n);
  for (int64_t r = begin; r < end; ++r) {
    const auto row = row_of<kResidual, T>(f, r);
    // Around the first value, which loses nothing where the mean is large.
    const float first = row.template at<float>(0);
    const float mean = first + row_sums<1>(
                                   n,
                                   [&](auto zero, int64_t c) {
                                     using V = decltype(zero);
                                     return Terms<1, V>{{row.template at<V>(c) - first}};
                                   }).of[0] /
                                   size;
    const float squares = row_sums<1>(n, [&](auto zero, int64_t c) {
                            using V = decltype(zero);
                            const V d = row.template at<V>(c) - mean;
                            return Terms<1, V>{{d * d}};
                          }).of[0];
    const float rstd = layer_norm_rstd(squares / size, f.eps);
    T* out = y + r * n;
    for_channels(n, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      put<V>(out + c, layer_norm_value(row.template at<V>(c), mean, rstd, get<V>(gamma + c),
                                       get<V>(beta + c)));
    });
    means[r] = mean;
    rstds[r] = rstd;
  }
}

// The gradients of rows [begin, end); sums [2, C] gather those of gamma and beta.
template <bool kResidual, bool kParameters, typename T>
void backward_rows(const LayerNormBackward& b, int64_t begin, int64_t end, float* sums) {
  const LayerNormForward& f = b.forward;
  const int64_t n = f.channels();
  const float* gamma = f.gamma.data<float>();
  const float size = static_cast<float>(n);
  float *dgamma = sums, *dbeta = kParameters ? sums + n : nullptr;
  for (int64_t r = begin; r < end; ++r) {
    const auto row = row_of<kResidual, T>(f, r);
    const float mean = f.mean.data<float>()[r], rstd = f.rstd.data<float>()[r];
    const T* dy = b.dy.data<T>() + r * n;
    const auto sum = row_sums<2>(n, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      const V h = (row.template at<V>(c) - mean) * rstd, d = get<V>(dy + c);
      if constexpr (kParameters) {
        put<V>(dgamma + c, get<V>(dgamma + c) + d * h);
        put<V>(dbeta + c, get<V>(dbeta + c) + d);
      }
      const V g = d * get<V>(gamma + c);
      return Terms<2, V>{{g, g * h}};
    });
    if (!b.dx.defined()) continue;
    const float mean_g = sum.of[0] / size, mean_gh = sum.of[1] / size;
    T* dx = b.dx.data<T>() + r * n;
    for_channels(n, [&](auto zero, int64_t c) {
      using V = decltype(zero);
      const V h = (row.template at<V>(c) - mean) * rstd;
      const V g = get<V>(dy + c) * get<V>(gamma + c);
      put<V>(dx + c, layer_norm_slope(g, h, rstd, mean_g, mean_gh));
    });
  }
}

template <bool kResidual, typename T>
void backward(LayerNormBackward& b) {
  const int64_t n = b.forward.channels(), rows = b.forward.rows();
  if (!b.dgamma.defined()) {
    parallel_chunks(rows, std::max<int64_t>(1, 8192 / n), [&](int64_t begin, int64_t end) {
      backward_rows<kResidual, false, T>(b, begin, end, nullptr);
    });
    return;
  }
  const int64_t step = rows_of_chunk(rows, kRows), chunks = (rows + step - 1) / step;
  const Tensor partial = Tensor::empty({chunks, 2, n}, DType::f32);
  float* sums = partial.data<float>();
  parallel_for(chunks, std::max<int64_t>(1, 8192 / (n * step)), [&](int64_t chunk) {
    float* own = sums + chunk * 2 * n;
    std::fill_n(own, 2 * n, 0.0f);
    backward_rows<kResidual, true, T>(b, chunk * step, std::min(rows, (chunk + 1) * step), own);
  });
  sum_chunks(sums, 2 * n, chunks, n, b.dgamma.data<float>());
  sum_chunks(sums + n, 2 * n, chunks, n, b.dbeta.data<float>());
}

}  // namespace

void layer_norm_forward(LayerNormForward& f, Tensor& y) {
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto rows = f.residual.defined() ? forward_rows<true, T> : forward_rows<false, T>;
    T* out = y.data<T>();
    parallel_chunks(f.rows(), std::max<int64_t>(1, 8192 / f.channels()),
                    [&](int64_t begin, int64_t end) { rows(f, out, begin, end); });
  });
}

void layer_norm_backward(LayerNormBackward& b) {
  dispatch_floating(b.forward.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    b.forward.residual.defined() ? backward<true, T>(b) : backward<false, T>(b);
  });
}

}  // namespace mixpl::cpu
