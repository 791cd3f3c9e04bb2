#include "core/parallel.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/iou_loss/iou_loss_math.h"

namespace mixpl::cpu {

void iou_loss_forward(const Tensor& pred, const Tensor& target, const Tensor& weight,
                      const IouLossOptions& options, Tensor& loss) {
  const float *p = pred.data<float>(), *t = target.data<float>(), *w = weight.data<float>();
  *loss.data<float>() = static_cast<float>(parallel_sum(weight.numel(), [=](int64_t b) {
    return w[b] == 0 ? 0.0 : w[b] * iou_term(p + 4 * b, t + 4 * b, options.kind, options.eps).loss;
  }));
}

void iou_loss_backward(const Tensor& dloss, const Tensor& pred, const Tensor& target,
                       const Tensor& weight, const IouLossOptions& options, Tensor& dpred) {
  const float *p = pred.data<float>(), *t = target.data<float>(), *w = weight.data<float>();
  const float scale = *dloss.data<float>();
  float* out = dpred.data<float>();
  parallel_for(weight.numel(), [=](int64_t b) {
    IouTerm term{};
    if (w[b] != 0) term = iou_term(p + 4 * b, t + 4 * b, options.kind, options.eps);
    for (int k = 0; k < 4; ++k)
      out[4 * b + k] = w[b] == 0 ? 0.0f : static_cast<float>(scale * w[b] * term.d[k]);
  });
}

}  // namespace mixpl::cpu
