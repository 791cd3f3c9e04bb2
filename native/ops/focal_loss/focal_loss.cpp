#include "ops/focal_loss/focal_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& labels, int64_t classes,
                          FocalLossOptions options) {
  const Check check("sigmoidFocalLoss");
  check.floating("logits", logits);
  check.dtype("labels", labels, DType::i32);
  check.at_least("classes", static_cast<double>(classes), 1);
  if (logits.numel() != labels.numel() * classes)
    throw ShapeError(str("sigmoidFocalLoss: labels must hold one entry per ", classes,
                         " logits, got ", labels.shape(), " for logits ", logits.shape()));
  check.same_device("labels", labels, logits);
  check.in_range("alpha", options.alpha, 0, 1);
  check.at_least("gamma", options.gamma, 0);

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  Tensor dlogits = recording({logits}) ? Tensor::empty_like(logits) : Tensor();
  MIXPL_DISPATCH(logits.device(), focal_loss_forward, logits, labels, classes, options, loss,
                 dlogits);
  record(loss, {logits}, [dlogits](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dlogits.device(), scale_in_place, dlogits, dloss.item());
    return Gradients{std::move(dlogits)};
  });
  return loss;
}

namespace {
// Inputs: logits, labels; { alpha, gamma, classes = last axis of logits }.
const bool registered =
    register_op("sigmoidFocalLoss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2)
        throw ShapeError(str("sigmoidFocalLoss: needs 2 tensors, got ", in.size()));
      if (in[0].rank() < 1)
        throw ShapeError("sigmoidFocalLoss: logits must have a class axis, got a scalar");
      FocalLossOptions options;
      options.alpha = static_cast<float>(o.number("alpha", options.alpha));
      options.gamma = static_cast<float>(o.number("gamma", options.gamma));
      return std::vector<Tensor>{
          sigmoid_focal_loss(in[0], in[1], o.integer("classes", in[0].size(-1)), options)};
    });
}  // namespace

}  // namespace mixpl
