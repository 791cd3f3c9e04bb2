#include "ops/valid_boxes/valid_boxes.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor valid_boxes(const Tensor& boxes, const Tensor& fallback) {
  const Check check("validBoxes");
  check.dtype("boxes", boxes, DType::f32);
  if (boxes.rank() < 1 || boxes.size(-1) != 4)
    throw ShapeError(str("validBoxes: boxes must be [..., 4] (x1 y1 x2 y2), got ", boxes.shape()));
  check.dtype("fallback", fallback, DType::f32);
  check.shape("fallback", fallback, boxes.shape(), "the shape of boxes");
  check.same_device("fallback", fallback, boxes);
  Tensor out = Tensor::empty({boxes.numel() / 4, 4}, DType::f32, boxes.device());
  MIXPL_DISPATCH(boxes.device(), valid_boxes_forward, boxes, fallback, out);
  record(out, {boxes, fallback}, [=](const Tensor& dout) {
    Gradients grads(2);
    if (boxes.requires_grad()) grads[0] = Tensor::empty_like(boxes);
    if (fallback.requires_grad()) grads[1] = Tensor::empty_like(fallback);
    MIXPL_DISPATCH(boxes.device(), valid_boxes_backward, dout, boxes, grads[0], grads[1]);
    return grads;
  });
  if (is_traced()) note("validBoxes", {boxes, fallback}, {out});
  return out;
}

namespace {
const bool registered =
    register_op("validBoxes", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("validBoxes: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{valid_boxes(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
