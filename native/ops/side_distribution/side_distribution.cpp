#include "ops/side_distribution/side_distribution.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// [P, 4 B] with B >= 2.
void check_logits(const Check& check, const Tensor& logits) {
  check.dtype("logits", logits, DType::f32);
  check.rank("logits", logits, 2, "P, 4 B");
  if (logits.size(1) % 4 != 0 || logits.size(1) < 8)
    throw ShapeError(
        str(check.op(), ": logits must be [P, 4 B] with B >= 2 bins a side, got ", logits.shape()));
}

}  // namespace

Tensor expected_sides(const Tensor& logits, const Tensor& values) {
  const Check check("expectedSides");
  check_logits(check, logits);
  check.dtype("values", values, DType::f32);
  check.shape("values", values, {logits.size(1) / 4}, "one a bin");
  check.same_device("values", values, logits);

  Tensor sides = Tensor::empty({logits.size(0), 4}, DType::f32, logits.device());
  MIXPL_DISPATCH(logits.device(), expected_sides_forward, logits, values, sides);
  record(sides, {logits}, [=](const Tensor& dsides) {
    Tensor dlogits = Tensor::empty_like(logits);
    MIXPL_DISPATCH(logits.device(), expected_sides_backward, dsides, logits, values, dlogits);
    return Gradients{dlogits};
  });
  return sides;
}

Tensor distribution_focal_loss(const Tensor& logits, const Tensor& sides, const Tensor& weight) {
  const Check check("distributionFocalLoss");
  check_logits(check, logits);
  check.dtype("sides", sides, DType::f32);
  check.shape("sides", sides, {logits.size(0), 4}, "four per box");
  check.dtype("weight", weight, DType::f32);
  check.shape("weight", weight, {logits.size(0)}, "one per box");
  check.same_device("sides", sides, logits);
  check.same_device("weight", weight, logits);

  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  MIXPL_DISPATCH(logits.device(), distribution_focal_loss_forward, logits, sides, weight, loss);
  record(loss, {logits}, [=](const Tensor& dloss) {
    Tensor dlogits = Tensor::empty_like(logits);
    MIXPL_DISPATCH(logits.device(), distribution_focal_loss_backward, dloss, logits, sides, weight,
                   dlogits);
    return Gradients{dlogits};
  });
  return loss;
}

namespace {
const bool registered =
    register_op("expectedSides",
                [](const std::vector<Tensor>& in, const Options&) {
                  if (in.size() != 2)
                    throw ShapeError(str("expectedSides: needs 2 tensors, got ", in.size()));
                  return std::vector<Tensor>{expected_sides(in[0], in[1])};
                }) &&
    register_op("distributionFocalLoss", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 3)
        throw ShapeError(str("distributionFocalLoss: needs 3 tensors, got ", in.size()));
      return std::vector<Tensor>{distribution_focal_loss(in[0], in[1], in[2])};
    });
}  // namespace

}  // namespace mixpl
