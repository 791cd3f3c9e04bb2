#include "ops/sigmoid_bce/sigmoid_bce.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

Tensor sigmoid_bce(const Tensor& logits, const Tensor& target, const Tensor& weight) {
  const Check check("sigmoidBce");
  check.floating("logits", logits);
  check.dtype("target", target, DType::f32);
  check.dtype("weight", weight, DType::f32);
  for (const auto& [name, t] : {std::pair{"target", &target}, {"weight", &weight}}) {
    if (t->numel() != logits.numel())
      throw ShapeError(str("sigmoidBce: ", name, " must hold ", logits.numel(),
                           " numbers (one a logit), got ", t->shape()));
    check.same_device(name, *t, logits);
  }

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  MIXPL_DISPATCH(logits.device(), sigmoid_bce_forward, logits, target, weight, loss);
  record(loss, {logits}, [=](const Tensor& dloss) {
    Tensor dlogits = Tensor::empty_like(logits);
    MIXPL_DISPATCH(logits.device(), sigmoid_bce_backward, dloss, logits, target, weight, dlogits);
    return Gradients{dlogits};
  });
  return loss;
}

namespace {
const bool registered =
    register_op("sigmoidBce", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 3) throw ShapeError(str("sigmoidBce: needs 3 tensors, got ", in.size()));
      return std::vector<Tensor>{sigmoid_bce(in[0], in[1], in[2])};
    });
}  // namespace

}  // namespace mixpl
