#include "core/cuda/kernel.h"
#include "ops/side_distribution/side_distribution.h"
#include "ops/side_distribution/side_distribution_math.h"

namespace mixpl::cuda {
namespace {

// Item i of all: a side. There are four a positive, each with few bins in f64: the arithmetic
// outweighs that neighbouring threads read a side apart.

struct ExpectedView {
  const float* __restrict__ x;
  const float* __restrict__ values;
  int64_t bins;
  float* __restrict__ out;

  MIXPL_DEVICE void operator()(int64_t i) const {
    out[i] = static_cast<float>(expected_side(x + i * bins, values, bins));
  }
};

struct ExpectedGradientView {
  const float* __restrict__ dsides;
  const float* __restrict__ x;
  const float* __restrict__ values;
  int64_t bins;
  float* __restrict__ out;

  MIXPL_DEVICE void operator()(int64_t i) const {
    expected_side_slopes(x + i * bins, values, bins, dsides[i], out + i * bins);
  }
};

struct LossView {
  const float* __restrict__ x;
  const float* __restrict__ sides;
  const float* __restrict__ weight;
  int64_t bins;

  MIXPL_DEVICE float operator()(int64_t i) const {
    const float w = weight[i / 4];
    return w == 0 ? 0.0f : static_cast<float>(w * distribution_loss(x + i * bins, sides[i], bins));
  }
};

struct GradientView {
  const float* __restrict__ dloss;
  const float* __restrict__ x;
  const float* __restrict__ sides;
  const float* __restrict__ weight;
  int64_t bins;
  float* __restrict__ out;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const double w = weight[i / 4];
    if (w != 0)
      distribution_slopes(x + i * bins, sides[i], bins, *dloss * w, out + i * bins);
    else
      for (int64_t j = 0; j < bins; ++j) out[i * bins + j] = 0;
  }
};

int64_t bins_of(const Tensor& logits) { return logits.size(1) / 4; }

}  // namespace

void expected_sides_forward(const Tensor& logits, const Tensor& values, Tensor& sides) {
  for_each(sides.numel(), ExpectedView{logits.data<float>(), values.data<float>(), bins_of(logits),
                                       sides.data<float>()});
}

void expected_sides_backward(const Tensor& dsides, const Tensor& logits, const Tensor& values,
                             Tensor& dlogits) {
  for_each(dsides.numel(),
           ExpectedGradientView{dsides.data<float>(), logits.data<float>(), values.data<float>(),
                                bins_of(logits), dlogits.data<float>()});
}

void distribution_focal_loss_forward(const Tensor& logits, const Tensor& sides,
                                     const Tensor& weight, Tensor& loss) {
  reduce_sum(
      sides.numel(),
      LossView{logits.data<float>(), sides.data<float>(), weight.data<float>(), bins_of(logits)},
      loss.data<float>());
}

void distribution_focal_loss_backward(const Tensor& dloss, const Tensor& logits,
                                      const Tensor& sides, const Tensor& weight, Tensor& dlogits) {
  for_each(sides.numel(),
           GradientView{dloss.data<float>(), logits.data<float>(), sides.data<float>(),
                        weight.data<float>(), bins_of(logits), dlogits.data<float>()});
}

}  // namespace mixpl::cuda
