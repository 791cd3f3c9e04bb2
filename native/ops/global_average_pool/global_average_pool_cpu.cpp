#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/global_average_pool/global_average_pool.h"

namespace mixpl::cpu {

void global_average_pool_forward(const Tensor& x, Tensor& y) {
  constexpr int64_t kPixels = 256;  // of a chunk; what a sum is made of must not depend on threads
  const int64_t images = x.size(0), pixels = x.size(1) * x.size(2), c = x.size(3);
  const int64_t chunks = (pixels + kPixels - 1) / kPixels;
  std::vector<float> partial(images * chunks * c, 0.0f);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(images * chunks, std::max<int64_t>(1, 65536 / (kPixels * c + 1)), [&](int64_t i) {
      const int64_t image = i / chunks, begin = i % chunks * kPixels;
      const int64_t end = std::min(pixels, begin + kPixels);
      float* sum = partial.data() + i * c;
      for (int64_t p = begin; p < end; ++p) {
        const T* from = in + (image * pixels + p) * c;
        for (int64_t k = 0; k < c; ++k) sum[k] += float(from[k]);
      }
    });
    std::vector<double> sum(c);
    for (int64_t n = 0; n < images; ++n) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t i = n * chunks; i < (n + 1) * chunks; ++i)
        for (int64_t k = 0; k < c; ++k) sum[k] += partial[i * c + k];
      for (int64_t k = 0; k < c; ++k)
        out[n * c + k] = T(static_cast<float>(sum[k] / static_cast<double>(pixels)));
    }
  });
}

void global_average_pool_backward(const Tensor& dy, Tensor& dx) {
  const int64_t pixels = dx.size(1) * dx.size(2), c = dx.size(3);
  const float scale = 1.0f / static_cast<float>(pixels);
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = dy.data<T>();
    T* out = dx.data<T>();
    parallel_for(dx.size(0) * pixels, std::max<int64_t>(1, 65536 / (c + 1)), [&](int64_t p) {
      const T* from = in + p / pixels * c;
      for (int64_t k = 0; k < c; ++k) out[p * c + k] = T(float(from[k]) * scale);
    });
  });
}

}  // namespace mixpl::cpu
