#include "ops/l1_loss/l1_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/registry.h"

namespace mixpl {

Tensor smooth_l1_loss(const Tensor& pred, const Tensor& target, const Tensor& weight, float beta) {
  const Check check("smoothL1Loss");
  check.floating("pred", pred);
  check.dtype("target", target, DType::f32);
  check.dtype("weight", weight, DType::f32);
  check.at_least("beta", beta, 0);
  if (target.numel() != pred.numel())
    throw ShapeError(str("smoothL1Loss: target must hold ", pred.numel(),
                         " numbers (as pred), got ", target.shape()));
  if (weight.numel() * 4 != pred.numel())
    throw ShapeError(str("smoothL1Loss: weight must hold one number per 4 of pred (", pred.numel(),
                         "), got ", weight.shape()));
  Tensor loss = Tensor::empty({}, DType::f32, pred.device());
  Tensor dpred = recording({pred}) ? Tensor::empty_like(pred) : Tensor();
  MIXPL_DISPATCH(pred.device(), smooth_l1_forward, pred, target, weight, beta, loss, dpred);
  record(loss, {pred}, [dpred](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dpred.device(), scale_in_place, dpred, dloss.item());
    return Gradients{std::move(dpred)};
  });
  return loss;
}

namespace {
// Inputs: pred, target, weight; { beta }.
const bool registered =
    register_op("smoothL1Loss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 3) throw ShapeError(str("smoothL1Loss: needs 3 tensors, got ", in.size()));
      return std::vector<Tensor>{
          smooth_l1_loss(in[0], in[1], in[2], static_cast<float>(o.number("beta", 0)))};
    });
}  // namespace

}  // namespace mixpl
