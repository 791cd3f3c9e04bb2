#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "ops/group_norm/group_norm.h"

namespace mixpl::cpu {
namespace {

// Rows (pixels) are summed in chunks of this many, per channel in f32, chunks then in double and in
// order: the same bits for any number of threads, and no long f32 sums.
constexpr int64_t kRows = 128;

int64_t chunks_of(int64_t rows) { return (rows + kRows - 1) / kRows; }

}  // namespace

void group_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                        const Tensor& residual, const GroupNormOptions& o, Tensor& y,
                        Tensor& stats) {
  const int64_t n = x.size(0), hw = x.size(1) * x.size(2), c = x.size(3);
  if (x.numel() == 0) return;
  const int64_t groups = o.groups, per = c / groups, chunks = chunks_of(hw);
  float* stat = stats.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    // Sums of (v - shift) and its square per chunk and channel; the shift (the image's first pixel)
    // keeps the variance exact when the mean is large.
    std::vector<float> sums(n * chunks * 2 * c, 0.0f);
    parallel_for(n * chunks, int64_t{1}, [&](int64_t job) {
      const int64_t image = job / chunks, first = job % chunks * kRows;
      float *s = sums.data() + job * 2 * c, *q = s + c;
      const T* shift = in + image * hw * c;
      for (int64_t row = first; row < std::min(hw, first + kRows); ++row) {
        const T* v = in + (image * hw + row) * c;
        for (int64_t k = 0; k < c; ++k) {
          const float d = float(v[k]) - float(shift[k]);
          s[k] += d;
          q[k] += d * d;
        }
      }
    });
    for (int64_t image = 0; image < n; ++image) {
      const T* shift = in + image * hw * c;
      for (int64_t g = 0; g < groups; ++g) {
        // Channel means and scatter first, then the group's by the law of total variance.
        double mean = 0, scatter = 0;
        std::vector<double> channel_mean(per);
        for (int64_t k = 0; k < per; ++k) {
          double s = 0, q = 0;
          for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const float* at = sums.data() + (image * chunks + chunk) * 2 * c + g * per + k;
            s += at[0];
            q += at[c];
          }
          const double m = s / hw;
          channel_mean[k] = m + float(shift[g * per + k]);
          scatter += q - s * m;
          mean += channel_mean[k];
        }
        mean /= per;
        for (double m : channel_mean) scatter += hw * (m - mean) * (m - mean);
        const double variance = std::max(scatter / (double(hw) * per), 0.0);
        float* out = stat + (image * groups + g) * 2;
        out[0] = static_cast<float>(mean);
        out[1] = static_cast<float>(1.0 / std::sqrt(variance + o.eps));
      }
    }
    const float *ga = gamma.data<float>(), *be = beta.data<float>();
    const T* add = residual.defined() ? residual.data<T>() : nullptr;
    T* out = y.data<T>();
    const float floor = o.relu ? 0.0f : -INFINITY;
    parallel_for(n * chunks, int64_t{1}, [&](int64_t job) {
      const int64_t image = job / chunks, first = job % chunks * kRows;
      std::vector<float> scale(c), shift(c);
      for (int64_t k = 0; k < c; ++k) {
        const float* s = stat + (image * groups + k / per) * 2;
        scale[k] = ga[k] * s[1];
        shift[k] = be[k] - s[0] * scale[k];
      }
      for (int64_t row = first; row < std::min(hw, first + kRows); ++row) {
        const int64_t at = (image * hw + row) * c;
        const T* v = in + at;
        T* result = out + at;
        if (add) {
          for (int64_t k = 0; k < c; ++k)
            result[k] = T(std::max(float(v[k]) * scale[k] + shift[k] + float(add[at + k]), floor));
        } else {
          for (int64_t k = 0; k < c; ++k)
            result[k] = T(std::max(float(v[k]) * scale[k] + shift[k], floor));
        }
      }
    });
  });
}

// With h = (x - mean) r and e = gamma dy:  dx = r (e - mean(e) - h mean(e h)), means over the
// group.
void group_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma,
                         const Tensor& stats, const GroupNormOptions& o, Tensor& dx, Tensor& dgamma,
                         Tensor& dbeta) {
  const int64_t n = x.size(0), hw = x.size(1) * x.size(2), c = x.size(3);
  dgamma.fill(0);
  dbeta.fill(0);
  if (x.numel() == 0) return;
  const int64_t groups = o.groups, per = c / groups, chunks = chunks_of(hw);
  const float *stat = stats.data<float>(), *ga = gamma.data<float>();
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *in = x.data<T>(), *up = dy.data<T>();
    // Per chunk and channel: sum dy, sum dy (x - mean).
    std::vector<float> sums(n * chunks * 2 * c, 0.0f);
    parallel_for(n * chunks, int64_t{1}, [&](int64_t job) {
      const int64_t image = job / chunks, first = job % chunks * kRows;
      std::vector<float> mean(c);
      for (int64_t k = 0; k < c; ++k) mean[k] = stat[(image * groups + k / per) * 2];
      float *s = sums.data() + job * 2 * c, *q = s + c;
      for (int64_t row = first; row < std::min(hw, first + kRows); ++row) {
        const int64_t at = (image * hw + row) * c;
        const T *v = in + at, *d = up + at;
        for (int64_t k = 0; k < c; ++k) {
          s[k] += float(d[k]);
          q[k] += float(d[k]) * (float(v[k]) - mean[k]);
        }
      }
    });
    std::vector<double> db(c, 0.0), dg(c, 0.0);
    std::vector<float> a(n * groups), b(n * groups);  // mean(e) and mean(e h) r, per group
    for (int64_t image = 0; image < n; ++image)
      for (int64_t g = 0; g < groups; ++g) {
        const double r = stat[(image * groups + g) * 2 + 1];
        double e = 0, eh = 0;
        for (int64_t k = g * per; k < (g + 1) * per; ++k) {
          double s = 0, q = 0;
          for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const float* at = sums.data() + (image * chunks + chunk) * 2 * c + k;
            s += at[0];
            q += at[c];
          }
          db[k] += s;
          dg[k] += q * r;
          e += s * ga[k];
          eh += q * r * ga[k];
        }
        const double count = double(hw) * per;
        a[image * groups + g] = static_cast<float>(e / count);
        b[image * groups + g] = static_cast<float>(eh / count * r);
      }
    for (int64_t k = 0; k < c; ++k) {
      dgamma.data<float>()[k] = static_cast<float>(dg[k]);
      dbeta.data<float>()[k] = static_cast<float>(db[k]);
    }
    T* out = dx.data<T>();
    parallel_for(n * chunks, int64_t{1}, [&](int64_t job) {
      const int64_t image = job / chunks, first = job % chunks * kRows;
      // dx = dy * scale + x * slope + offset, per channel
      std::vector<float> scale(c), slope(c), offset(c);
      for (int64_t k = 0; k < c; ++k) {
        const int64_t g = image * groups + k / per;
        const float mean = stat[g * 2], r = stat[g * 2 + 1];
        scale[k] = ga[k] * r;
        slope[k] = -r * b[g];
        offset[k] = -r * a[g] - slope[k] * mean;
      }
      for (int64_t row = first; row < std::min(hw, first + kRows); ++row) {
        const int64_t at = (image * hw + row) * c;
        const T *v = in + at, *d = up + at;
        T* result = out + at;
        for (int64_t k = 0; k < c; ++k)
          result[k] = T(float(d[k]) * scale[k] + float(v[k]) * slope[k] + offset[k]);
      }
    });
  });
}

}  // namespace mixpl::cpu
