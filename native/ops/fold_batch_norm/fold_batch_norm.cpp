#include "ops/fold_batch_norm/fold_batch_norm.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

void record_fold(const std::pair<Tensor, Tensor>& folded, const Tensor& weight, const Tensor& gamma,
                 const Tensor& beta, const Tensor& mean, const Tensor& variance, float eps) {
  record({folded.first, folded.second}, {weight, gamma, beta}, [=](std::vector<Tensor> d) {
    Gradients grads(3);
    bool add = false;
    if (weight.requires_grad()) {
      // What other passes gave is added to here, otherwise the gradient takes dfolded's place.
      if (d[0].defined()) grads[0] = take_grad(weight);
      add = grads[0].defined();
      if (!add) grads[0] = d[0].defined() && d[0].unique() ? d[0] : Tensor::empty_like(weight);
    }
    if (gamma.requires_grad()) grads[1] = Tensor::empty_like(gamma);
    MIXPL_DISPATCH(weight.device(), fold_batch_norm_backward, d[0], d[1], weight, gamma, mean,
                   variance, eps, add, grads[0], grads[1]);
    if (beta.requires_grad()) grads[2] = d[1];
    return grads;
  });
  // Nobody asks for the bias's: the convolution need not sum it.
  if (!gamma.requires_grad() && !beta.requires_grad())
    Tensor(folded.second).set_requires_grad(false);
}

std::pair<Tensor, Tensor> fold_batch_norm(const Tensor& weight, const Tensor& gamma,
                                          const Tensor& beta, const Tensor& mean,
                                          const Tensor& variance, float eps, DType type) {
  const Check check("foldBatchNorm");
  check.dtype("weight", weight, DType::f32);
  if (weight.rank() < 1) throw ShapeError("foldBatchNorm: weight must have an axis, got a scalar");
  for (const auto& [name, t] : {std::pair{"gamma", &gamma}, std::pair{"beta", &beta},
                                std::pair{"mean", &mean}, std::pair{"variance", &variance}}) {
    check.dtype(name, *t, DType::f32);
    check.shape(name, *t, {weight.size(0)}, "one a filter");
  }
  check.at_least("eps", eps, 0);
  Tensor folded = Tensor::empty(weight.shape(), type, weight.device());
  Tensor bias = Tensor::empty_like(beta);
  MIXPL_DISPATCH(weight.device(), fold_batch_norm_forward, weight, gamma, beta, mean, variance, eps,
                 folded, bias);
  record_fold({folded, bias}, weight, gamma, beta, mean, variance, eps);
  return {folded, bias};
}

namespace {
// Inputs: weight, gamma, beta, mean, variance; { eps }.
const bool registered =
    register_op("foldBatchNorm", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 5) throw ShapeError(str("foldBatchNorm: needs 5 tensors, got ", in.size()));
      const auto [folded, bias] = fold_batch_norm(in[0], in[1], in[2], in[3], in[4],
                                                  static_cast<float>(o.number("eps", 1e-5)));
      return std::vector<Tensor>{folded, bias};
    });
}  // namespace

}  // namespace mixpl
