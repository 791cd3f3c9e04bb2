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
    const float* own = x + i * bins;
    const SideSoftmax s = SideSoftmax::of(own, bins);
    const double mean = expected_side(own, v, bins);
    for (int64_t j = 0; j < bins; ++j)
      out[i * bins + j] = static_cast<float>(d[i] * s.at(own[j]) * (v[j] - mean));
  });
}

void distribution_focal_loss_forward(const Tensor& logits, const Tensor& sides,
                                     const Tensor& weight, Tensor& loss) {
  const float *x = logits.data<float>(), *y = sides.data<float>(), *w = weight.data<float>();
  const int64_t bins = sides.numel() ? logits.numel() / sides.numel() : 2;
  *loss.data<float>() = static_cast<float>(parallel_sum(sides.numel(), [=](int64_t i) {
    if (w[i / 4] == 0) return 0.0;
    const float* own = x + i * bins;
    const SideSoftmax s = SideSoftmax::of(own, bins);
    const BinShare share = BinShare::of(y[i], bins);
    return -w[i / 4] * ((1 - share.high_share) * s.log_at(own[share.low]) +
                        share.high_share * s.log_at(own[share.low + 1]));
  }));
}

void distribution_focal_loss_backward(const Tensor& dloss, const Tensor& logits,
                                      const Tensor& sides, const Tensor& weight, Tensor& dlogits) {
  const float *x = logits.data<float>(), *y = sides.data<float>(), *w = weight.data<float>();
  const int64_t bins = sides.numel() ? logits.numel() / sides.numel() : 2;
  const double scale = *dloss.data<float>();
  float* out = dlogits.data<float>();
  parallel_for(sides.numel(), int64_t{512}, [=](int64_t i) {
    const float* own = x + i * bins;
    const bool counts = w[i / 4] != 0;
    const SideSoftmax s = SideSoftmax::of(own, bins);
    const BinShare share = BinShare::of(y[i], bins);
    for (int64_t j = 0; j < bins; ++j) {
      const double wanted = j == share.low       ? 1 - share.high_share
                            : j == share.low + 1 ? share.high_share
                                                 : 0;
      out[i * bins + j] =
          counts ? static_cast<float>(scale * w[i / 4] * (s.at(own[j]) - wanted)) : 0.0f;
    }
  });
}

}  // namespace mixpl::cpu
