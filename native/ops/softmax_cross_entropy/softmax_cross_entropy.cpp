#include "ops/softmax_cross_entropy/softmax_cross_entropy.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

namespace {

void check_inputs(const Tensor& logits, const Tensor& labels) {
  const Check check("softmaxCrossEntropy");
  check.floating("logits", logits);
  check.dtype("labels", labels, DType::i32);
  if (logits.rank() < 1 || logits.size(-1) < 1)
    throw ShapeError(
        str("softmaxCrossEntropy: logits must have a class axis, got ", logits.shape()));
  check.shape("labels", labels, drop_last(logits.shape()), "logits without the last axis");
  check.same_device("labels", labels, logits);
}

}  // namespace

Tensor softmax_cross_entropy(const Tensor& logits, const Tensor& labels) {
  check_inputs(logits, labels);
  Tensor loss = Tensor::empty({}, DType::f32, logits.device());
  MIXPL_DISPATCH(logits.device(), softmax_cross_entropy_forward, logits, labels, loss);
  record(loss, {logits}, [=](const Tensor& dloss) {
    Tensor dlogits = Tensor::empty_like(logits);
    MIXPL_DISPATCH(logits.device(), softmax_cross_entropy_backward, dloss, logits, labels, dlogits);
    return Gradients{dlogits};
  });
  return loss;
}

namespace {
const bool registered =
    register_op("softmaxCrossEntropy", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2)
        throw ShapeError(str("softmaxCrossEntropy: needs 2 tensors, got ", in.size()));
      check_inputs(in[0], in[1]);
      const int64_t classes = in[0].size(-1);
      const int64_t bad =
          MIXPL_DISPATCH(in[1].device(), softmax_cross_entropy_bad_label, in[1], classes);
      if (bad >= 0)
        throw RangeError(str("softmaxCrossEntropy: labels must be below ", classes,
                             " (negative: left out), got ", bad));
      return std::vector<Tensor>{softmax_cross_entropy(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
