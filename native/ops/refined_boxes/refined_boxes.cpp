#include "ops/refined_boxes/refined_boxes.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor refined_boxes(const Tensor& deltas, const Tensor& references, float eps) {
  const Check check("refinedBoxes");
  check.floating("deltas", deltas);
  check.rank("deltas", deltas, 3, "N, Q, 4");
  check.size("deltas", deltas, 2, 4, "cx, cy, w, h");
  check.dtype("references", references, DType::f32);
  check.rank("references", references, 3, "N, Q, 4 or 2");
  const int64_t moved = references.size(2) == 2 ? 2 : 4;
  check.shape("references", references, {deltas.size(0), deltas.size(1), moved},
              "a box, or a point of 2 numbers, for each of deltas");
  check.same_device("references", references, deltas);
  check.in_range("eps", eps, 0, 0.5);
  Tensor boxes = Tensor::empty(deltas.shape(), DType::f32, deltas.device());
  MIXPL_DISPATCH(deltas.device(), refined_boxes_forward, deltas, references, eps, boxes);
  record(boxes, {deltas, references}, [=](const Tensor& dboxes) {
    Tensor ddeltas, dreferences;
    if (deltas.requires_grad()) ddeltas = Tensor::empty_like(deltas);
    if (references.requires_grad()) dreferences = Tensor::empty_like(references);
    MIXPL_DISPATCH(deltas.device(), refined_boxes_backward, dboxes, deltas, references, eps,
                   ddeltas, dreferences);
    return Gradients{ddeltas, dreferences};
  });
  if (is_traced()) note("refinedBoxes", {deltas, references}, {boxes}, {{"eps", eps}});
  return boxes;
}

namespace {
// deltas, references; { eps }, 1e-5 when absent.
const bool registered =
    register_op("refinedBoxes", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2) throw ShapeError(str("refinedBoxes: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{
          refined_boxes(in[0], in[1], static_cast<float>(o.number("eps", 1e-5)))};
    });
}  // namespace

}  // namespace mixpl
