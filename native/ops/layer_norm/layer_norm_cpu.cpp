#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/chunk_sums.h"
#include "core/parallel.h"
#include "core/simd.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layer_norm/layer_norm_math.h"

// A row is f32 in the first cache while it is worked on, so that one copy of the arithmetic serves
// both types, with a residual or without.

namespace mixpl::cpu {
namespace {

using simd::f32x8;

// Rows whose sums for gamma and beta are one partial sum, at least.
constexpr int64_t kRows = 32;

// x as f32 (+ residual): where it lies, or in `memory`.
template <typename T>
const float* floats(const T* x, const T* residual, float* memory, int64_t n) {
  if (residual) {
    int64_t c = 0;
    for (; c + 8 <= n; c += 8)
      simd::store(memory + c, simd::load(x + c) + simd::load(residual + c));
    for (; c < n; ++c) memory[c] = float(x[c]) + float(residual[c]);
    return memory;
  }
  if constexpr (std::is_same_v<T, float>) return x;
  simd::scale(x, 1, memory, n);
  return memory;
}
// Where a row of results is made as f32, and how it gets to its place from there.
template <typename T>
float* desk_of(T* y, float* memory) {
  if constexpr (std::is_same_v<T, float>) return y;
  return memory;
}
template <typename T>
void put_row(const float* desk, T* y, int64_t n) {
  if constexpr (!std::is_same_v<T, float>) simd::scale(desk, 1, y, n);
}

float sum_of_lanes(f32x8 v) {
  float sum = 0;
  for (int lane = 0; lane < 8; ++lane) sum += v[lane];
  return sum;
}

// Sum of term(s[c]), in an order that follows from n; four sums hide the additions' latency.
template <typename F>
float sum_of(const float* s, int64_t n, F&& term) {
  f32x8 sum[4] = {};
  int64_t c = 0;
  for (; c + 32 <= n; c += 32)
    for (int u = 0; u < 4; ++u) sum[u] += term(simd::load(s + c + 8 * u));
  for (; c + 8 <= n; c += 8) sum[0] += term(simd::load(s + c));
  float rest = 0;
  for (; c < n; ++c) rest += term(s[c]);
  return rest + sum_of_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

struct Moments {
  float mean, rstd;
};
// Around the first value, which loses nothing where the mean is large.
Moments moments_of(const float* s, int64_t n, float eps) {
  const float first = s[0], size = static_cast<float>(n);
  const float mean = first + sum_of(s, n, [=](auto v) { return v - first; }) / size;
  const float squares = sum_of(s, n, [=](auto v) { return (v - mean) * (v - mean); });
  return {mean, layer_norm_rstd(squares / size, eps)};
}

void normalise(const float* s, const float* gamma, const float* beta, Moments m, float* y,
               int64_t n) {
  int64_t c = 0;
  for (; c + 8 <= n; c += 8)
    simd::store(y + c, layer_norm_value(simd::load(s + c), m.mean, m.rstd, simd::load(gamma + c),
                                        simd::load(beta + c)));
  for (; c < n; ++c) y[c] = layer_norm_value(s[c], m.mean, m.rstd, gamma[c], beta[c]);
}

struct RowSums {
  float g, gh;  // of gamma dy, and of that times h
};
// h from s and g = gamma dy, which may lie where s and dy do; adds the row's share to the gradients
// of gamma and beta.
RowSums gather(const float* s, const float* dy, const float* gamma, Moments m, float* h, float* g,
               float* dgamma, float* dbeta, int64_t n) {
  f32x8 sum_g{}, sum_gh{};
  RowSums rest{0, 0};
  int64_t c = 0;
  for (; c + 8 <= n; c += 8) {
    const f32x8 at = (simd::load(s + c) - m.mean) * m.rstd, d = simd::load(dy + c);
    const f32x8 slope = d * simd::load(gamma + c);
    simd::store(h + c, at);
    simd::store(g + c, slope);
    simd::store(dgamma + c, simd::load(dgamma + c) + d * at);
    simd::store(dbeta + c, simd::load(dbeta + c) + d);
    sum_g += slope;
    sum_gh += slope * at;
  }
  for (; c < n; ++c) {
    const float at = (s[c] - m.mean) * m.rstd, d = dy[c], slope = d * gamma[c];
    h[c] = at;
    g[c] = slope;
    dgamma[c] += d * at;
    dbeta[c] += d;
    rest.g += slope;
    rest.gh += slope * at;
  }
  return {rest.g + sum_of_lanes(sum_g), rest.gh + sum_of_lanes(sum_gh)};
}

// g becomes the gradient.
void slopes(float* g, const float* h, float rstd, RowSums sums, int64_t n) {
  const float mean_g = sums.g / static_cast<float>(n), mean_gh = sums.gh / static_cast<float>(n);
  int64_t c = 0;
  for (; c + 8 <= n; c += 8)
    simd::store(g + c,
                layer_norm_slope(simd::load(g + c), simd::load(h + c), rstd, mean_g, mean_gh));
  for (; c < n; ++c) g[c] = layer_norm_slope(g[c], h[c], rstd, mean_g, mean_gh);
}

template <typename T>
const T* row_of(const Tensor& t, int64_t row, int64_t n) {
  return t.defined() ? t.data<T>() + row * n : nullptr;
}

// The gradients of rows [begin, end); sums [2, C] gather those of gamma and beta.
template <typename T>
void backward_rows(const LayerNormBackward& b, int64_t begin, int64_t end, float* sums) {
  const LayerNormForward& f = b.forward;
  const int64_t n = f.channels();
  std::vector<float> memory(2 * n);
  float *h = memory.data(), *free = h + n;
  for (int64_t r = begin; r < end; ++r) {
    const Moments m{f.mean.data<float>()[r], f.rstd.data<float>()[r]};
    T* dx = b.dx.defined() ? b.dx.data<T>() + r * n : nullptr;
    float* g = dx ? desk_of(dx, free) : free;
    const float* s = floats(row_of<T>(f.x, r, n), row_of<T>(f.residual, r, n), h, n);
    const float* dy = floats<T>(row_of<T>(b.dy, r, n), nullptr, free, n);
    const RowSums row = gather(s, dy, f.gamma.data<float>(), m, h, g, sums, sums + n, n);
    if (!dx) continue;
    slopes(g, h, m.rstd, row, n);
    put_row(g, dx, n);
  }
}

}  // namespace

void layer_norm_forward(LayerNormForward& f, Tensor& y) {
  const int64_t n = f.channels();
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(f.rows(), std::max<int64_t>(1, 8192 / n), [&](int64_t begin, int64_t end) {
      std::vector<float> memory(2 * n);
      for (int64_t r = begin; r < end; ++r) {
        T* out = y.data<T>() + r * n;
        float* desk = desk_of(out, memory.data() + n);
        const float* s =
            floats(row_of<T>(f.x, r, n), row_of<T>(f.residual, r, n), memory.data(), n);
        const Moments m = moments_of(s, n, f.eps);
        normalise(s, f.gamma.data<float>(), f.beta.data<float>(), m, desk, n);
        put_row(desk, out, n);
        f.mean.data<float>()[r] = m.mean;
        f.rstd.data<float>()[r] = m.rstd;
      }
    });
  });
}

void layer_norm_backward(LayerNormBackward& b) {
  const int64_t n = b.forward.channels(), rows = b.forward.rows();
  const int64_t step = rows_of_chunk(rows, kRows), chunks = (rows + step - 1) / step;
  // Gathered even where nobody asks: half a row's work at most, in one kind of loop.
  const Tensor partial = Tensor::empty({chunks, 2, n}, DType::f32);
  float* sums = partial.data<float>();
  dispatch_floating(b.forward.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_for(chunks, std::max<int64_t>(1, 8192 / (n * step)), [&](int64_t chunk) {
      float* own = sums + chunk * 2 * n;
      std::fill_n(own, 2 * n, 0.0f);
      backward_rows<T>(b, chunk * step, std::min(rows, (chunk + 1) * step), own);
    });
  });
  if (!b.dgamma.defined()) return;
  sum_chunks(sums, 2 * n, chunks, n, b.dgamma.data<float>());
  sum_chunks(sums + n, 2 * n, chunks, n, b.dbeta.data<float>());
}

}  // namespace mixpl::cpu
