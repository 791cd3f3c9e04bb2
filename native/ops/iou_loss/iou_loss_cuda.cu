#include "core/cuda/kernel.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/iou_loss/iou_loss_math.h"

namespace mixpl::cuda {
namespace {

struct Pairs {
  const float* __restrict__ pred;
  const float* __restrict__ target;
  const float* __restrict__ weight;
  IouLossOptions options;

  MIXPL_DEVICE IouTerm at(int64_t b) const {
    const Vec<float, 4> p = load_vec<float, 4>(pred + 4 * b);
    const Vec<float, 4> t = load_vec<float, 4>(target + 4 * b);
    return iou_term(&p[0], &t[0], options.kind, options.eps);
  }
};

struct LossView {
  Pairs pairs;
  MIXPL_DEVICE float operator()(int64_t b) const {
    const float w = pairs.weight[b];
    return w == 0 ? 0.0f : static_cast<float>(w * pairs.at(b).loss);
  }
};

struct GradientView {
  Pairs pairs;
  const float* __restrict__ dloss;
  float* __restrict__ dpred;

  MIXPL_DEVICE void operator()(int64_t b) const {
    const float w = pairs.weight[b];
    Vec<float, 4> d{};
    if (w != 0) {
      const float scale = load_read_only(dloss) * w;
      const IouTerm term = pairs.at(b);
#pragma unroll
      for (int k = 0; k < 4; ++k) d[k] = static_cast<float>(scale * term.d[k]);
    }
    store_vec(dpred + 4 * b, d);
  }
};

Pairs pairs_of(const Tensor& pred, const Tensor& target, const Tensor& weight,
               const IouLossOptions& options) {
  return {pred.data<float>(), target.data<float>(), weight.data<float>(), options};
}

}  // namespace

void iou_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      const IouLossOptions& options, Tensor& loss) {
  reduce_sum(weight.numel(), LossView{pairs_of(pred, target, weight, options)}, loss.data<float>());
}

void iou_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                       const Tensor& weight, const IouLossOptions& options, Tensor& dpred) {
  for_each(weight.numel(), GradientView{pairs_of(pred, target, weight, options),
                                        dloss.data<float>(), dpred.data<float>()});
}

}  // namespace mixpl::cuda
