#include "ops/focal_loss/focal_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& labels, int64_t classes,
                          const FocalLossOptions& options, const Tensor& weight) {
  const Check check("sigmoidFocalLoss");
  check.floating("logits", logits);
  check.dtype("labels", labels, DType::i32);
  check.at_least("classes", static_cast<double>(classes), 1);
  if (labels.numel() * classes != logits.numel())
    throw ShapeError(str("sigmoidFocalLoss: labels must hold one entry per ", classes,
                         " logits, got ", labels.shape(), " for logits ", logits.shape()));
  check.same_device("labels", labels, logits);
  check.in_range("alpha", options.alpha, 0, 1);
  check.at_least("gamma", options.gamma, 0);
  if (weight.defined()) {
    check.dtype("weight", weight, DType::f32);
    check.same_device("weight", weight, logits);
    if (weight.numel() < 1 || labels.numel() % weight.numel() != 0)
      throw ShapeError(str("sigmoidFocalLoss: weight must hold one number per equal run of labels ",
                           labels.shape(), ", got ", weight.shape()));
  }

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  Tensor dlogits = recording({logits}) ? Tensor::empty_like(logits) : Tensor();
  MIXPL_DISPATCH(logits.device(), focal_loss_forward, logits, labels, classes, options, weight,
                 loss, dlogits);
  record(loss, {logits}, [dlogits](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dlogits.device(), focal_loss_backward, dloss, dlogits);
    return Gradients{std::move(dlogits)};
  });
  return loss;
}

namespace {

// C from the shapes: labels are logits without the last axis, or with A in its place.
int64_t classes_of(const Tensor& logits, const Tensor& labels) {
  const Check check("sigmoidFocalLoss");
  check.floating("logits", logits);
  check.dtype("labels", labels, DType::i32);
  if (logits.rank() < 1)
    throw ShapeError("sigmoidFocalLoss: logits must have a class axis, got a scalar");
  const Shape places = drop_last(logits.shape());
  if (labels.rank() == logits.rank() && drop_last(labels.shape()) == places &&
      labels.size(-1) > 0 && logits.size(-1) % labels.size(-1) == 0)
    return logits.size(-1) / labels.size(-1);
  check.shape("labels", labels, places, "logits without the last axis");
  return logits.size(-1);
}

// Inputs: logits, labels, perhaps weight; { alpha, gamma, classes }, where classes is only needed
// when the shapes leave it open. Checks the labels' range, which the op itself leaves to its
// caller.
const bool registered =
    register_op("sigmoidFocalLoss", [](const std::vector<Tensor>& in, const Options& json) {
      if (in.size() != 2 && in.size() != 3)
        throw ShapeError(str("sigmoidFocalLoss: needs 2 or 3 tensors, got ", in.size()));
      FocalLossOptions options;
      options.alpha = static_cast<float>(json.number("alpha", options.alpha));
      options.gamma = static_cast<float>(json.number("gamma", options.gamma));
      const int64_t classes =
          json.has("classes") ? json.integer("classes", 0) : classes_of(in[0], in[1]);
      Check("sigmoidFocalLoss").dtype("labels", in[1], DType::i32);
      const int64_t bad = MIXPL_DISPATCH(in[1].device(), focal_loss_bad_label, in[1], classes);
      if (bad)
        throw RangeError(str("sigmoidFocalLoss: labels must be in [-1, ", classes,
                             "] (-1 ignored, ", classes, " background), got ", bad));
      return std::vector<Tensor>{
          sigmoid_focal_loss(in[0], in[1], classes, options, in.size() == 3 ? in[2] : Tensor())};
    });

}  // namespace

}  // namespace mixpl
