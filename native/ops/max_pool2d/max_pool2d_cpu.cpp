#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "ops/max_pool2d/max_pool2d.h"
#include "ops/max_pool2d/max_pool2d_math.h"

namespace mixpl::cpu {

// One output pixel at a time, channels innermost. The running best is kept in f32.
void max_pool2d_forward(const Tensor& x, const Pool2dOptions& o, Tensor& y, Tensor& winner) {
  const int64_t h = x.size(1), w = x.size(2), c = x.size(3), p = y.size(1), q = y.size(2);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    uint8_t* won = winner.defined() ? winner.data<uint8_t>() : nullptr;
    parallel_chunks(y.size(0) * p, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> best(c);
      std::vector<int32_t> at(c);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / p, i = row % p;
        for (int64_t j = 0; j < q; ++j) {
          std::fill(best.begin(), best.end(), -std::numeric_limits<float>::infinity());
          std::fill(at.begin(), at.end(), -1);
          for (int r = 0; r < o.kernel; ++r) {
            const int64_t yy = i * o.stride - o.padding + r;
            if (yy < 0 || yy >= h) continue;
            for (int s = 0; s < o.kernel; ++s) {
              const int64_t xx = j * o.stride - o.padding + s;
              if (xx < 0 || xx >= w) continue;
              const T* __restrict source = in + ((n * h + yy) * w + xx) * c;
              const int32_t position = r * o.kernel + s;
              float* __restrict b = best.data();
              int32_t* __restrict a = at.data();
              for (int64_t k = 0; k < c; ++k) {
                const float v = float(source[k]);
                const bool take = wins(v, b[k], a[k]);
                b[k] = take ? v : b[k];
                a[k] = take ? position : a[k];
              }
            }
          }
          const int64_t base = ((n * p + i) * q + j) * c;
          for (int64_t k = 0; k < c; ++k) out[base + k] = T(best[k]);
          if (won)
            for (int64_t k = 0; k < c; ++k) won[base + k] = static_cast<uint8_t>(at[k]);
        }
      }
    });
  });
}

// Gathers instead of scattering: each input pixel asks the windows that cover it, so threads never
// write to the same place.
void max_pool2d_backward(const Tensor& dy, const Tensor& winner, const Pool2dOptions& o,
                         Tensor& dx) {
  const int64_t h = dx.size(1), w = dx.size(2), c = dx.size(3), p = dy.size(1), q = dy.size(2);
  dispatch_floating(dx.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = dy.data<T>();
    const uint8_t* won = winner.data<uint8_t>();
    T* out = dx.data<T>();
    parallel_chunks(dx.size(0) * h, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(c);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / h, yy = row % h;
        for (int64_t xx = 0; xx < w; ++xx) {
          std::fill(sum.begin(), sum.end(), 0.0f);
          for (int r = 0; r < o.kernel; ++r) {
            const int64_t top = yy + o.padding - r;
            if (top < 0 || top % o.stride || top / o.stride >= p) continue;
            for (int s = 0; s < o.kernel; ++s) {
              const int64_t left = xx + o.padding - s;
              if (left < 0 || left % o.stride || left / o.stride >= q) continue;
              const int64_t base = ((n * p + top / o.stride) * q + left / o.stride) * c;
              const uint8_t position = static_cast<uint8_t>(r * o.kernel + s);
              const uint8_t* __restrict w8 = won + base;
              const T* __restrict d = in + base;
              float* __restrict to = sum.data();
              for (int64_t k = 0; k < c; ++k) {
                const float v = float(d[k]);
                to[k] += w8[k] == position ? v : 0.0f;
              }
            }
          }
          T* target = out + ((n * h + yy) * w + xx) * c;
          for (int64_t k = 0; k < c; ++k) target[k] = T(sum[k]);
        }
      }
    });
  });
}

}  // namespace mixpl::cpu
