#include "ops/quality_focal_loss/quality_focal_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/registry.h"

namespace mixpl {

Tensor quality_focal_loss(const Tensor& logits, const Tensor& labels, const Tensor& quality,
                          int64_t classes, float beta) {
  const Check check("qualityFocalLoss");
  check.floating("logits", logits);
  check.dtype("labels", labels, DType::i32);
  check.dtype("quality", quality, DType::f32);
  check.at_least("classes", static_cast<double>(classes), 1);
  if (labels.numel() * classes != logits.numel())
    throw ShapeError(str("qualityFocalLoss: labels must hold one entry per ", classes,
                         " logits, got ", labels.shape(), " for logits ", logits.shape()));
  if (quality.numel() != labels.numel())
    throw ShapeError(str("qualityFocalLoss: quality must hold one number per label, got ",
                         quality.shape(), " for labels ", labels.shape()));
  check.same_device("labels", labels, logits);
  check.same_device("quality", quality, logits);
  if (beta != 0) check.at_least("beta", beta, 1);

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  Tensor dlogits = recording({logits}) ? Tensor::empty_like(logits) : Tensor();
  MIXPL_DISPATCH(logits.device(), quality_focal_loss_forward, logits, labels, quality, classes,
                 beta, loss, dlogits);
  record(loss, {logits}, [dlogits](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dlogits.device(), focal_loss_backward, dloss, dlogits);
    return Gradients{std::move(dlogits)};
  });
  return loss;
}

namespace {
// logits, labels, quality; { beta, classes }, where classes is the last axis of logits when absent.
// Checks the labels' range, which the op itself leaves to its caller.
const bool registered =
    register_op("qualityFocalLoss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 3)
        throw ShapeError(str("qualityFocalLoss: needs 3 tensors, got ", in.size()));
      const Check check("qualityFocalLoss");
      check.defined("logits", in[0]);
      if (in[0].rank() < 1)
        throw ShapeError("qualityFocalLoss: logits must have a class axis, got a scalar");
      check.dtype("labels", in[1], DType::i32);
      const int64_t classes = o.integer("classes", in[0].size(-1));
      const int64_t bad = MIXPL_DISPATCH(in[1].device(), focal_loss_bad_label, in[1], classes);
      if (bad)
        throw RangeError(str("qualityFocalLoss: labels must be in [-1, ", classes,
                             "] (-1 ignored, ", classes, " background), got ", bad));
      return std::vector<Tensor>{quality_focal_loss(in[0], in[1], in[2], classes,
                                                    static_cast<float>(o.number("beta", 2)))};
    });
}  // namespace

}  // namespace mixpl
