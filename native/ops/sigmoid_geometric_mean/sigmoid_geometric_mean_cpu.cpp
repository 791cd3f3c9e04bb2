#include <algorithm>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean.h"
#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean_math.h"

namespace mixpl::cpu {
namespace {

template <typename T>
MIXPL_CPU_CLONES void forward_of(const T* x, float root, float* z, int64_t n) {
  for (int64_t i = 0; i < n; ++i) z[i] = geometric_mean(float(x[i]), root);
}

int64_t grain(int64_t c) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(c, 1)); }

}  // namespace

void sigmoid_geometric_mean_forward(const Tensor& x, const Tensor& y, Tensor& z) {
  const int64_t c = x.size(-1);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *a = x.data<T>(), *b = y.data<T>();
    float* out = z.data<float>();
    parallel_for(y.numel(), grain(c), [=](int64_t row) {
      forward_of(a + row * c, sqrtf(sigmoids(float(b[row])).p), out + row * c, c);
    });
  });
}

void sigmoid_geometric_mean_backward(const Tensor& dz, const Tensor& x, const Tensor& y, Tensor& dx,
                                     Tensor& dy) {
  const int64_t c = x.size(-1);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *a = x.data<T>(), *b = y.data<T>();
    const float* d = dz.data<float>();
    T* da = dx.defined() ? dx.data<T>() : nullptr;
    T* db = dy.defined() ? dy.data<T>() : nullptr;
    parallel_for(y.numel(), grain(c), [=](int64_t row) {
      const Sigmoids own = sigmoids(float(b[row]));
      const float half_root = 0.5f * sqrtf(own.p);
      float sum = 0;
      for (int64_t i = row * c; i < (row + 1) * c; ++i) {
        const MeanSlopes slopes = geometric_mean_slopes(d[i], float(a[i]), half_root);
        if (da) da[i] = T(slopes.dx);
        sum += slopes.share;
      }
      if (db) db[row] = T(sum * own.q);
    });
  });
}

}  // namespace mixpl::cpu
