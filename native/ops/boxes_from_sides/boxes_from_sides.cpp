#include "ops/boxes_from_sides/boxes_from_sides.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

Tensor boxes_from_sides(const Tensor& sides) {
  const Check check("boxesFromSides");
  check.floating("sides", sides);
  if (sides.numel() % 4 != 0)
    throw ShapeError(str("boxesFromSides: sides must hold 4 numbers per box, got ", sides.shape()));
  Tensor boxes = Tensor::empty({sides.numel() / 4, 4}, DType::f32, sides.device());
  MIXPL_DISPATCH(sides.device(), boxes_from_sides_forward, sides, boxes);
  record(boxes, {sides},
         [shape = sides.shape(), dtype = sides.dtype(), device = sides.device()](const Tensor& d) {
           Tensor dsides = Tensor::empty(shape, dtype, device);
           MIXPL_DISPATCH(device, boxes_from_sides_backward, d, dsides);
           return Gradients{dsides};
         });
  return boxes;
}

namespace {
const bool registered =
    register_op("boxesFromSides", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 1) throw ShapeError(str("boxesFromSides: needs 1 tensor, got ", in.size()));
      return std::vector<Tensor>{boxes_from_sides(in[0])};
    });
}  // namespace

}  // namespace mixpl
