#include "ops/prob_focal_loss/prob_focal_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_inputs(const Check& check, const Tensor& probabilities, const Tensor& labels,
                  int64_t classes) {
  check.dtype("probabilities", probabilities, DType::f32);
  check.dtype("labels", labels, DType::i32);
  check.at_least("classes", static_cast<double>(classes), 1);
  if (labels.numel() * classes != probabilities.numel())
    throw ShapeError(str(check.op(), ": labels must hold one entry per ", classes,
                         " probabilities, got ", labels.shape(), " for probabilities ",
                         probabilities.shape()));
  check.same_device("labels", labels, probabilities);
}

// What both losses leave on the tape: dprobabilities of the forward pass times dloss.
void record_scaled(const Tensor& loss, const Tensor& probabilities, Tensor dprobabilities) {
  record(loss, {probabilities}, [dprobabilities](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dprobabilities.device(), focal_loss_backward, dloss, dprobabilities);
    return Gradients{std::move(dprobabilities)};
  });
}

// Labels of a named op: [-1, classes].
void check_labels(const Check& check, const Tensor& probabilities, const Tensor& labels,
                  int64_t classes) {
  check_inputs(check, probabilities, labels, classes);
  const int64_t bad = MIXPL_DISPATCH(labels.device(), focal_loss_bad_label, labels, classes);
  if (bad)
    throw RangeError(str(check.op(), ": labels must be in [-1, ", classes, "] (-1 ignored, ",
                         classes, " background), got ", bad));
}

int64_t classes_of(const Check& check, const Tensor& probabilities) {
  check.defined("probabilities", probabilities);
  if (probabilities.rank() < 1)
    throw ShapeError(str(check.op(), ": probabilities must have a class axis, got a scalar"));
  return probabilities.size(-1);
}

}  // namespace

Tensor prob_focal_loss(const Tensor& probabilities, const Tensor& labels, int64_t classes,
                       const FocalLossOptions& options) {
  const Check check("probFocalLoss");
  check_inputs(check, probabilities, labels, classes);
  check.in_range("alpha", options.alpha, 0, 1);
  check.at_least("gamma", options.gamma, 0);
  Tensor loss = Tensor::empty({}, DType::f32, probabilities.device());
  Tensor d = recording({probabilities}) ? Tensor::empty_like(probabilities) : Tensor();
  MIXPL_DISPATCH(probabilities.device(), prob_focal_loss_forward, probabilities, labels, classes,
                 options, loss, d);
  record_scaled(loss, probabilities, d);
  return loss;
}

Tensor prob_quality_focal_loss(const Tensor& probabilities, const Tensor& labels,
                               const Tensor& quality, int64_t classes, float beta) {
  const Check check("probQualityFocalLoss");
  check_inputs(check, probabilities, labels, classes);
  check.dtype("quality", quality, DType::f32);
  if (quality.numel() != labels.numel())
    throw ShapeError(str("probQualityFocalLoss: quality must hold one number per label, got ",
                         quality.shape(), " for labels ", labels.shape()));
  check.same_device("quality", quality, probabilities);
  if (beta != 0) check.at_least("beta", beta, 1);
  Tensor loss = Tensor::empty({}, DType::f32, probabilities.device());
  Tensor d = recording({probabilities}) ? Tensor::empty_like(probabilities) : Tensor();
  MIXPL_DISPATCH(probabilities.device(), prob_quality_focal_loss_forward, probabilities, labels,
                 quality, classes, beta, loss, d);
  record_scaled(loss, probabilities, d);
  return loss;
}

namespace {
// probFocalLoss: probabilities, labels; { alpha, gamma }. probQualityFocalLoss: and quality; { beta
// }.
const bool registered =
    register_op("probFocalLoss",
                [](const std::vector<Tensor>& in, const Options& o) {
                  if (in.size() != 2)
                    throw ShapeError(str("probFocalLoss: needs 2 tensors, got ", in.size()));
                  const Check check("probFocalLoss");
                  const int64_t classes = classes_of(check, in[0]);
                  check_labels(check, in[0], in[1], classes);
                  FocalLossOptions options;
                  options.alpha = static_cast<float>(o.number("alpha", options.alpha));
                  options.gamma = static_cast<float>(o.number("gamma", options.gamma));
                  return std::vector<Tensor>{prob_focal_loss(in[0], in[1], classes, options)};
                }) &&
    register_op("probQualityFocalLoss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 3)
        throw ShapeError(str("probQualityFocalLoss: needs 3 tensors, got ", in.size()));
      const Check check("probQualityFocalLoss");
      const int64_t classes = classes_of(check, in[0]);
      check_labels(check, in[0], in[1], classes);
      return std::vector<Tensor>{prob_quality_focal_loss(in[0], in[1], in[2], classes,
                                                         static_cast<float>(o.number("beta", 2)))};
    });
}  // namespace

}  // namespace mixpl
