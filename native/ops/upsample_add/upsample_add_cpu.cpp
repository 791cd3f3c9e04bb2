#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/upsample_add/upsample_add.h"
#include "ops/upsample_add/upsample_add_math.h"

namespace mixpl::cpu {

void upsample_add_forward(const Tensor& lateral, const Tensor& top, Tensor& y) {
  const int64_t h = y.size(1), w = y.size(2), c = y.size(3), th = top.size(1), tw = top.size(2);
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *a = lateral.data<T>(), *b = top.data<T>();
    T* out = y.data<T>();
    parallel_for(y.size(0) * h, int64_t{4}, [&](int64_t row) {
      const int64_t source_row = row / h * th + row % h * th / h;
      for (int64_t x = 0; x < w; ++x) {
        const T* from = b + (source_row * tw + x * tw / w) * c;
        const int64_t at = (row * w + x) * c;
        for (int64_t k = 0; k < c; ++k) out[at + k] = T(float(a[at + k]) + float(from[k]));
      }
    });
  });
}

void upsample_add_backward(const Tensor& dy, Tensor& dtop) {
  const int64_t h = dy.size(1), w = dy.size(2), c = dy.size(3), th = dtop.size(1),
                tw = dtop.size(2);
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = dy.data<T>();
    T* out = dtop.data<T>();
    parallel_chunks(dtop.size(0) * th, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sum(c);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / th, s = row % th;
        for (int64_t x = 0; x < tw; ++x) {
          std::fill(sum.begin(), sum.end(), 0.0f);
          for (int64_t yy = first_fed(s, h, th); yy < first_fed(s + 1, h, th); ++yy)
            for (int64_t xx = first_fed(x, w, tw); xx < first_fed(x + 1, w, tw); ++xx) {
              const T* from = in + ((n * h + yy) * w + xx) * c;
              for (int64_t k = 0; k < c; ++k) sum[k] += float(from[k]);
            }
          T* target = out + (row * tw + x) * c;
          for (int64_t k = 0; k < c; ++k) target[k] = T(sum[k]);
        }
      }
    });
  });
}

}  // namespace mixpl::cpu
