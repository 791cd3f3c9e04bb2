#include <algorithm>

#include "core/parallel.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "ops/softmax_cross_entropy/softmax_cross_entropy_math.h"

namespace mixpl::cpu {
namespace {

template <typename T>
RowSoftmax softmax_of(const T* x, int64_t n) {
  float most = float(x[0]);
  for (int64_t i = 1; i < n; ++i) most = std::max(most, float(x[i]));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += RowSoftmax::share(float(x[i]), most);
  return {most, sum};
}

}  // namespace

int64_t softmax_cross_entropy_bad_label(const Tensor& labels, int64_t classes) {
  const int32_t* label = labels.data<int32_t>();
  for (int64_t i = 0; i < labels.numel(); ++i)
    if (label[i] >= classes) return label[i];
  return -1;
}

void softmax_cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& loss) {
  const int64_t classes = logits.size(-1);
  const int32_t* label = labels.data<int32_t>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    const auto* x = logits.data<decltype(tag)>();
    *loss.data<float>() = static_cast<float>(parallel_sum(labels.numel(), [&](int64_t r) {
      if (label[r] < 0) return 0.0;
      const auto* row = x + r * classes;
      return softmax_of(row, classes).loss(float(row[label[r]]));
    }));
  });
}

void softmax_cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels,
                                    Tensor& dlogits) {
  const int64_t classes = logits.size(-1);
  const float scale = *dloss.data<float>();
  const int32_t* label = labels.data<int32_t>();
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* x = logits.data<T>();
    T* out = dlogits.data<T>();
    parallel_for(labels.numel(), int64_t{64}, [&](int64_t r) {
      const T* row = x + r * classes;
      T* d = out + r * classes;
      if (label[r] < 0) {
        std::fill_n(d, classes, T(0.0f));
        return;
      }
      const RowSoftmax s = softmax_of(row, classes);
      for (int64_t c = 0; c < classes; ++c) d[c] = T(scale * s.slope(float(row[c]), c == label[r]));
    });
  });
}

}  // namespace mixpl::cpu
