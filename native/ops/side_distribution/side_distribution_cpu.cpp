#include "core/parallel.h"
#include "ops/side_distribution/side_distribution.h"
#include "ops/side_distribution/side_distribution_math.h"

namespace mixpl::cpu {

void expected_sides_forward(const Tensor& logits, const Tensor& values, Tensor& sides) {
  const float *x = logits.data<float>(), *v = values.data<float>();
  const int64_t bins = values.numel();
  float* out = sides.data<float>();
  parallel_for(sides.numel(), int64_t{512}, [=](int64_t i) {
    out[i] = static_cast<float>(expected_side(x + i * bins, v, bins));
  });
}

void expected_sides_backward(const Tensor& dsides, const Tensor& logits, const Tensor& values,
                             Tensor& dlogits) {
  const float *x = logits.data<float>(), *v = values.data<float>(), *d = dsides.data<float>();
  const int64_t bins = values.numel();
  float* out = dlogits.data<float>();
  parallel_for(dsides.numel(), int64_t{512}, [=](int64_t i) {
    expected_side_slopes(x + i * bins, v, bins, d[i], out + i * bins);
  });
}

void distribution_focal_loss_forward(const Tensor& logits, const Tensor& sides,
                                     const Tensor& weight, Tensor& loss) {
  const float *x = logits.data<float>(), *y = sides.data<float>(), *w = weight.data<float>();
  const int64_t bins = sides.numel() ? logits.numel() / sides.numel() : 2;
  *loss.data<float>() = static_cast<float>(parallel_sum(sides.numel(), [=](int64_t i) {
    return w[i / 4] == 0 ? 0.0 : w[i / 4] * distribution_loss(x + i * bins, y[i], bins);
  }));
}

void distribution_focal_loss_backward(const Tensor& dloss, const Tensor& logits,
                                      const Tensor& sides, const Tensor& weight, Tensor& dlogits) {
  const float *x = logits.data<float>(), *y = sides.data<float>(), *w = weight.data<float>();
  const int64_t bins = sides.numel() ? logits.numel() / sides.numel() : 2;
  const double scale = *dloss.data<float>();
  float* out = dlogits.data<float>();
  parallel_for(sides.numel(), int64_t{512}, [=](int64_t i) {
    if (w[i / 4] == 0)
      std::fill_n(out + i * bins, bins, 0.0f);
    else
      distribution_slopes(x + i * bins, y[i], bins, scale * w[i / 4], out + i * bins);
  });
}

}  // namespace mixpl::cpu
