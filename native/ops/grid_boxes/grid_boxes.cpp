#include "ops/grid_boxes/grid_boxes.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor grid_boxes(const Tensor& sides, float offset) {
  const Check check("gridBoxes");
  check.dtype("sides", sides, DType::f32);
  check.rank("sides", sides, 4, "N, H, W, 4");
  check.size("sides", sides, 3, 4, "left, top, right, bottom");
  Tensor boxes = Tensor::empty_like(sides);
  MIXPL_DISPATCH(sides.device(), grid_boxes_forward, sides, offset, boxes);
  record(boxes, {sides}, [](const Tensor& dboxes) {
    Tensor dsides = Tensor::empty_like(dboxes);
    MIXPL_DISPATCH(dboxes.device(), grid_boxes_backward, dboxes, dsides);
    return Gradients{dsides};
  });
  if (is_traced()) note("gridBoxes", {sides}, {boxes}, {{"offset", offset}});
  return boxes;
}

namespace {
// Inputs: sides; { offset }.
const bool registered =
    register_op("gridBoxes", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 1) throw ShapeError(str("gridBoxes: needs 1 tensor, got ", in.size()));
      return std::vector<Tensor>{grid_boxes(in[0], static_cast<float>(o.number("offset", 0)))};
    });
}  // namespace

}  // namespace mixpl
