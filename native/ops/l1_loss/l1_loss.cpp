#include "ops/l1_loss/l1_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {
Tensor smooth_l1_loss(const Tensor& pred, const Tensor& target, const Tensor& weight, float beta) {
  const Check check("smoothL1Loss");
  check.floating("pred", pred);
  check.dtype("target", target, DType::f32);
  check.dtype("weight", weight, DType::f32);
  if (pred.numel() % 4 != 0)
    throw ShapeError(
        str("smoothL1Loss: pred must hold boxes of 4 numbers (x1 y1 x2 y2 or deltas), got ",
            pred.shape()));
  if (target.numel() != pred.numel())
    throw ShapeError(str("smoothL1Loss: target must hold ", pred.numel(),
                         " numbers (the numbers of pred), got ", target.shape()));
  if (weight.numel() * 4 != pred.numel())
    throw ShapeError(str("smoothL1Loss: weight must hold ", pred.numel() / 4,
                         " numbers (one per box of pred), got ", weight.shape()));
  check.same_device("target", target, pred);
  check.same_device("weight", weight, pred);
  check.at_least("beta", beta, 0);

  Tensor loss = Tensor::empty({}, DType::f32, pred.device());
  MIXPL_DISPATCH(pred.device(), smooth_l1_loss_forward, pred, target, weight, beta, loss);
  record(loss, {pred}, [=](const Tensor& dloss) {
    Tensor dpred = Tensor::empty_like(pred);
    MIXPL_DISPATCH(pred.device(), smooth_l1_loss_backward, dloss, pred, target, weight, beta,
                   dpred);
    return Gradients{dpred};
  });
  return loss;
}

namespace {
const bool registered =
    register_op("smoothL1Loss", [](const std::vector<Tensor>& inputs, const Options& json) {
      if (inputs.size() != 3)
        throw ShapeError(str("smoothL1Loss: needs 3 tensors, got ", inputs.size()));
      return std::vector<Tensor>{smooth_l1_loss(inputs[0], inputs[1], inputs[2],
                                                static_cast<float>(json.number("beta", 0)))};
    });
}  // namespace

}  // namespace mixpl
