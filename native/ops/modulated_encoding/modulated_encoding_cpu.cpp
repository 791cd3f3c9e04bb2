#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/modulated_encoding/modulated_encoding.h"
#include "ops/modulated_encoding/modulated_encoding_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

// One half of a row: y = e s factor; s may be null.
template <typename T>
void forward_half(const T* e, const T* s, float factor, T* y, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const f32x8 v = simd::load(e + i) * factor;
    simd::store(y + i, s ? v * simd::load(s + i) : v);
  }
  for (; i < n; ++i) y[i] = T(float(e[i]) * factor * (s ? float(s[i]) : 1.0f));
}

// Its gradients, of which de and ds may be null; returns the factor's.
template <typename T>
float backward_half(const T* d, const T* e, const T* s, float factor, T* de, T* ds, int64_t n) {
  f32x8 sums = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const f32x8 dv = simd::load(d + i), ev = simd::load(e + i);
    const f32x8 sv = s ? simd::load(s + i) : simd::splat(1);
    const f32x8 scaled = dv * sv, seen = dv * ev;
    sums += seen * sv;
    if (de) simd::store(de + i, scaled * factor);
    if (ds) simd::store(ds + i, seen * factor);
  }
  float sum = 0;
  for (int k = 0; k < 8; ++k) sum += sums[k];
  for (; i < n; ++i) {
    const float dv = float(d[i]), ev = float(e[i]), sv = s ? float(s[i]) : 1.0f;
    sum += dv * ev * sv;
    if (de) de[i] = T(dv * sv * factor);
    if (ds) ds[i] = T(dv * ev * factor);
  }
  return sum;
}

template <typename T>
T* data_of(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

int64_t rows_of_thread(int64_t channels) {
  return std::max<int64_t>(1, 8192 / std::max<int64_t>(channels, 1));
}

}  // namespace

void modulated_encoding_forward(const Tensor& encoding, const Tensor& sizes, const Tensor& boxes,
                                const Tensor& scale, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto view = modulation_view<T>(encoding, sizes, boxes, scale);
    const int64_t channels = view.channels, half = channels / 2;
    T* out = y.data<T>();
    parallel_for(view.rows, rows_of_thread(channels), [=](int64_t row) {
      const T* e = view.encoding + 2 * channels * row;
      const T* s = view.scale ? view.scale + channels * row : nullptr;
      T* to = out + channels * row;
      forward_half(e, s, view.factor_y(row), to, half);
      forward_half(e + half, s ? s + half : s, view.factor_x(row), to + half, half);
    });
  });
}

void modulated_encoding_backward(const Tensor& dy, const Tensor& encoding, const Tensor& sizes,
                                 const Tensor& boxes, const Tensor& scale,
                                 ModulatedEncodingGradients& gradients) {
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto view = modulation_view<T>(encoding, sizes, boxes, scale);
    const int64_t channels = view.channels, half = channels / 2;
    const T* d = dy.data<T>();
    T *dencoding = data_of<T>(gradients.dencoding), *dscale = data_of<T>(gradients.dscale),
      *dsizes = data_of<T>(gradients.dsizes);
    float* dboxes = data_of<float>(gradients.dboxes);
    parallel_for(view.rows, rows_of_thread(channels), [=](int64_t row) {
      const int64_t at = channels * row;
      const auto half_of = [&](int64_t first, float factor) {
        return backward_half(d + at + first, view.encoding + 2 * at + first,
                             view.scale ? view.scale + at + first : nullptr, factor,
                             dencoding ? dencoding + 2 * at + first : nullptr,
                             dscale ? dscale + at + first : nullptr, half);
      };
      const float of_y = half_of(0, view.factor_y(row)), of_x = half_of(half, view.factor_x(row));
      if (dencoding) std::fill_n(dencoding + 2 * at + channels, channels, T(0.0f));
      view.put_slopes(row, of_y, of_x, dsizes, dboxes);
    });
  });
}

}  // namespace mixpl::cpu
