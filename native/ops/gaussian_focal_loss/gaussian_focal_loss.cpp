#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/registry.h"

namespace mixpl {

Tensor gaussian_focal_loss(const Tensor& logits, const Tensor& heat, const Tensor& positives,
                           const GaussianFocalLossOptions& options) {
  const Check check("gaussianFocalLoss");
  check.floating("logits", logits);
  if (logits.rank() < 1)
    throw ShapeError("gaussianFocalLoss: logits must have a class axis, got a scalar");
  check.dtype("heat", heat, DType::f32);
  if (heat.numel() != logits.numel())
    throw ShapeError(str("gaussianFocalLoss: heat must hold one number per logit, got ",
                         heat.shape(), " for logits ", logits.shape()));
  check.dtype("positives", positives, DType::i32);
  check.rank("positives", positives, 2, "P, 2");
  check.size("positives", positives, 1, 2, "row and class");
  check.same_device("heat", heat, logits);
  check.same_device("positives", positives, logits);
  check.at_least("alpha", options.alpha, 0);
  check.at_least("gamma", options.gamma, 0);
  check.at_least("positiveWeight", options.positive_weight, 0);
  check.at_least("negativeWeight", options.negative_weight, 0);
  check.in_range("clamp", options.clamp, 1e-7, 0.5);

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  Tensor dlogits = recording({logits}) ? Tensor::empty_like(logits) : Tensor();
  MIXPL_DISPATCH(logits.device(), gaussian_focal_loss_forward, logits, heat, positives, options,
                 loss, dlogits);
  record(loss, {logits}, [dlogits](const Tensor& dloss) mutable {
    MIXPL_DISPATCH(dlogits.device(), focal_loss_backward, dloss, dlogits);
    return Gradients{std::move(dlogits)};
  });
  return loss;
}

namespace {
// Inputs: logits, heat, positives; { alpha, gamma, positiveWeight, negativeWeight, clamp }.
const bool registered =
    register_op("gaussianFocalLoss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 3)
        throw ShapeError(str("gaussianFocalLoss: needs 3 tensors, got ", in.size()));
      GaussianFocalLossOptions options;
      const auto read = [&](const char* key, float& value) {
        value = static_cast<float>(o.number(key, value));
      };
      read("alpha", options.alpha);
      read("gamma", options.gamma);
      read("positiveWeight", options.positive_weight);
      read("negativeWeight", options.negative_weight);
      read("clamp", options.clamp);
      const Check check("gaussianFocalLoss");
      check.floating("logits", in[0]);
      check.dtype("positives", in[2], DType::i32);
      check.rank("positives", in[2], 2, "P, 2");
      check.size("positives", in[2], 1, 2, "row and class");
      if (in[0].rank() > 0) {
        const int64_t classes = in[0].size(-1), rows = classes ? in[0].numel() / classes : 0;
        const int64_t bad =
            MIXPL_DISPATCH(in[2].device(), gaussian_focal_bad_positive, in[2], rows, classes);
        if (bad >= 0) {
          const std::vector<int32_t> pairs = in[2].to_vector<int32_t>();
          throw RangeError(str("gaussianFocalLoss: positives must be below [", rows, ", ", classes,
                               "] (rows, classes), got [", pairs[2 * bad], ", ", pairs[2 * bad + 1],
                               "]"));
        }
      }
      return std::vector<Tensor>{gaussian_focal_loss(in[0], in[1], in[2], options)};
    });
}  // namespace

}  // namespace mixpl
