#include "core/cuda/kernel.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss_math.h"

namespace mixpl::cuda {
namespace {

// The sum's items: the logits as negatives, kWidth at a time with their gradients, then the
// positives one by one. Their gradients are added in a second launch, when these are written.
template <typename T, bool kUsual>
struct SumView {
  static constexpr int kWidth = 16 / sizeof(T);

  const T* __restrict__ x;
  T* __restrict__ dx;  // null: nobody wants the gradient
  const float* __restrict__ heat;
  const int32_t* __restrict__ positives;
  int64_t numel, classes;
  GaussianFocal focal;

  MIXPL_DEVICE float operator()(int64_t i) const {
    const int64_t begin = i * kWidth;
    if (begin >= numel) {
      const int32_t* pair = positives + 2 * (i - (numel + kWidth - 1) / kWidth);
      if (pair[0] < 0) return 0;
      return focal.template positive<kUsual>(float(x[pair[0] * classes + pair[1]])).loss;
    }
    float sum = 0;
    if (begin + kWidth <= numel) {
      const Vec<T, kWidth> values = load_vec<T, kWidth>(x + begin);
      Vec<T, kWidth> slopes;
#pragma unroll
      for (int k = 0; k < kWidth; k += 4) {
        const Vec<float, 4> hot = load_vec<float, 4>(heat + begin + k);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const auto term = focal.template negative<kUsual>(float(values[k + j]), 1.0f - hot[j]);
          sum += term.loss;
          slopes[k + j] = T(term.slope);
        }
      }
      if (dx) store_vec(dx + begin, slopes);
    } else {
      for (int64_t k = begin; k < numel; ++k) {
        const auto term = focal.template negative<kUsual>(float(x[k]), 1.0f - heat[k]);
        sum += term.loss;
        if (dx) dx[k] = T(term.slope);
      }
    }
    return sum;
  }
};

// Positive i adds its gradient, and that of its repetitions after it, in order; those before it
// leave it nothing to do. Positives are few: comparing all pairs costs less than a sort.
template <typename T, bool kUsual>
struct PositiveView {
  const T* __restrict__ x;
  T* __restrict__ dx;
  const float* __restrict__ heat;
  const int32_t* __restrict__ positives;
  int64_t count, classes;
  GaussianFocal focal;

  MIXPL_DEVICE void operator()(int64_t i) const {
    if (positives[2 * i] < 0) return;
    const int64_t own = index_of(i);
    for (int64_t j = 0; j < i; ++j)
      if (index_of(j) == own) return;
    const float logit = float(x[own]);
    const float slope = focal.template positive<kUsual>(logit).slope;
    float sum = focal.template negative<kUsual>(logit, 1.0f - heat[own]).slope;
    for (int64_t j = i; j < count; ++j)
      if (index_of(j) == own) sum += slope;
    dx[own] = T(sum);
  }
  // Negative where there is none.
  MIXPL_DEVICE int64_t index_of(int64_t i) const {
    return positives[2 * i] < 0 ? -1 : positives[2 * i] * classes + positives[2 * i + 1];
  }
};

template <typename T, bool kUsual>
void forward(const Tensor& logits, const Tensor& heat, const Tensor& positives,
             const GaussianFocal& focal, Tensor& loss, Tensor& dlogits) {
  using Sum = SumView<T, kUsual>;
  const int64_t n = logits.numel(), count = positives.size(0), classes = logits.size(-1);
  const T* x = logits.data<T>();
  T* dx = dlogits.defined() ? dlogits.data<T>() : nullptr;
  const int32_t* pairs = positives.data<int32_t>();
  reduce_sum((n + Sum::kWidth - 1) / Sum::kWidth + count,
             Sum{x, dx, heat.data<float>(), pairs, n, classes, focal}, loss.data<float>());
  if (dx)
    for_each(count,
             PositiveView<T, kUsual>{x, dx, heat.data<float>(), pairs, count, classes, focal});
}

}  // namespace

// Of the named op only, which may wait.
int64_t gaussian_focal_bad_positive(const Tensor& positives, int64_t rows, int64_t classes) {
  return cpu::gaussian_focal_bad_positive(positives.to(Device::cpu()), rows, classes);
}

void gaussian_focal_loss_forward(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                                 const GaussianFocalLossOptions& o, Tensor& loss, Tensor& dlogits) {
  const GaussianFocal focal = GaussianFocal::of(o);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (focal.usual())
      forward<T, true>(logits, heat, positives, focal, loss, dlogits);
    else
      forward<T, false>(logits, heat, positives, focal, loss, dlogits);
  });
}

}  // namespace mixpl::cuda
