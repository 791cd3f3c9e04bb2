#include "ops/iou_loss/iou_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {
Tensor iou_loss(const Tensor& pred, const Tensor& target, const Tensor& weight,
                const IouLossOptions& options) {
  const Check check("iouLoss");
  check.dtype("pred", pred, DType::f32);
  if (pred.rank() != 2 || pred.size(1) != 4)
    throw ShapeError(str("iouLoss: pred must be [B, 4] (x1 y1 x2 y2), got ", pred.shape()));
  check.dtype("target", target, DType::f32);
  check.shape("target", target, pred.shape(), "the shape of pred");
  check.dtype("weight", weight, DType::f32);
  check.shape("weight", weight, {pred.size(0)}, "one per box of pred");
  check.same_device("target", target, pred);
  check.same_device("weight", weight, pred);
  check.at_least("eps", options.eps, 0);

  Tensor loss = Tensor::empty({}, DType::f32, pred.device());
  MIXPL_DISPATCH(pred.device(), iou_loss_forward, pred, target, weight, options, loss);
  record(loss, {pred}, [=](const Tensor& dloss) {
    Tensor dpred = Tensor::empty_like(pred);
    MIXPL_DISPATCH(pred.device(), iou_loss_backward, dloss, pred, target, weight, options, dpred);
    return Gradients{dpred};
  });
  return loss;
}

namespace {

IouKind parse_kind(const std::string& text) {
  if (text == "iou") return IouKind::iou;
  if (text == "giou") return IouKind::giou;
  if (text == "diou") return IouKind::diou;
  if (text == "ciou") return IouKind::ciou;
  throw ConfigError(str("iouLoss: kind must be 'iou', 'giou', 'diou' or 'ciou', got '", text, "'"));
}

const bool registered =
    register_op("iouLoss", [](const std::vector<Tensor>& inputs, const Options& json) {
      IouLossOptions options;
      options.kind = parse_kind(json.text("kind", "giou"));
      options.eps = static_cast<float>(json.number("eps", options.eps));
      if (inputs.size() != 3)
        throw ShapeError(str("iouLoss: needs 3 tensors, got ", inputs.size()));
      return std::vector<Tensor>{iou_loss(inputs[0], inputs[1], inputs[2], options)};
    });

}  // namespace

}  // namespace mixpl
