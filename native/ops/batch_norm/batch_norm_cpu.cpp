#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/batch_norm/batch_norm.h"

namespace mixpl::cpu {
namespace {

// Rows are summed in chunks of this many in f32, chunks in double and in order: the same bits for
// any number of threads.
constexpr int64_t kRows = 128;

// add(row, a, b) adds one pixel to two sums per channel; returns their totals.
template <typename Add>
std::pair<std::vector<double>, std::vector<double>> column_sums(int64_t rows, int64_t c,
                                                                Add&& add) {
  const int64_t chunks = (rows + kRows - 1) / kRows;
  std::vector<float> partial(chunks * 2 * c, 0.0f);
  parallel_for(chunks, int64_t{1}, [&](int64_t i) {
    float* a = partial.data() + i * 2 * c;
    for (int64_t row = i * kRows; row < std::min(rows, (i + 1) * kRows); ++row) add(row, a, a + c);
  });
  std::vector<double> a(c, 0.0), b(c, 0.0);
  for (int64_t i = 0; i < chunks; ++i)
    for (int64_t k = 0; k < c; ++k) {
      a[k] += partial[i * 2 * c + k];
      b[k] += partial[i * 2 * c + c + k];
    }
  return {std::move(a), std::move(b)};
}

}  // namespace

void channel_statistics(const Tensor& x, Tensor& mean, Tensor& variance) {
  const int64_t c = x.size(-1), rows = x.numel() / c;
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    // Relative to the first pixel, so that a large mean does not cancel the variance away.
    const auto [s, q] = column_sums(rows, c, [&](int64_t row, float* a, float* b) {
      const T* v = in + row * c;
      for (int64_t k = 0; k < c; ++k) {
        const float d = float(v[k]) - float(in[k]);
        a[k] += d;
        b[k] += d * d;
      }
    });
    for (int64_t k = 0; k < c; ++k) {
      const double m = s[k] / rows;
      mean.data<float>()[k] = static_cast<float>(m + float(in[k]));
      variance.data<float>()[k] = static_cast<float>(std::max(q[k] / rows - m * m, 0.0));
    }
  });
}

void channel_affine(const Tensor& x, const Tensor& scale, const Tensor& shift,
                    const Tensor& residual, bool relu, Tensor& y) {
  const int64_t c = x.size(-1), rows = c ? x.numel() / c : 0;
  const float *s = scale.data<float>(), *b = shift.data<float>();
  const float floor = relu ? 0.0f : -INFINITY;
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    const T* add = residual.defined() ? residual.data<T>() : nullptr;
    T* out = y.data<T>();
    parallel_for(rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(c, 1)), [&](int64_t row) {
      const T* v = in + row * c;
      T* result = out + row * c;
      if (add) {
        const T* a = add + row * c;
        for (int64_t k = 0; k < c; ++k)
          result[k] = T(std::max(float(v[k]) * s[k] + b[k] + float(a[k]), floor));
      } else {
        for (int64_t k = 0; k < c; ++k) result[k] = T(std::max(float(v[k]) * s[k] + b[k], floor));
      }
    });
  });
}

void channel_moments(const Tensor& dy, const Tensor& x, const Tensor& mean, Tensor& sum,
                     Tensor& product) {
  const int64_t c = x.size(-1), rows = c ? x.numel() / c : 0;
  const float* m = mean.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *up = dy.data<T>();
    const auto [s, q] = column_sums(rows, c, [&](int64_t row, float* a, float* b) {
      const T *v = in + row * c, *d = up + row * c;
      for (int64_t k = 0; k < c; ++k) {
        a[k] += float(d[k]);
        b[k] += float(d[k]) * (float(v[k]) - m[k]);
      }
    });
    for (int64_t k = 0; k < c; ++k) {
      sum.data<float>()[k] = static_cast<float>(s[k]);
      product.data<float>()[k] = static_cast<float>(q[k]);
    }
  });
}

void channel_affine_backward(const Tensor& dy, const Tensor& x, const Tensor& scale,
                             const Tensor& slope, const Tensor& offset, Tensor& dx) {
  const int64_t c = x.size(-1), rows = c ? x.numel() / c : 0;
  const float *s = scale.data<float>(), *m = slope.data<float>(), *o = offset.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *up = dy.data<T>();
    T* out = dx.data<T>();
    parallel_for(rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(c, 1)), [&](int64_t row) {
      const T *v = in + row * c, *d = up + row * c;
      T* result = out + row * c;
      for (int64_t k = 0; k < c; ++k) result[k] = T(float(d[k]) * s[k] + float(v[k]) * m[k] + o[k]);
    });
  });
}

}  // namespace mixpl::cpu
