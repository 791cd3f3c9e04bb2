#include "ops/boxes_from_centers/boxes_from_centers.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

Tensor boxes_from_centers(const Tensor& boxes, const Tensor& sizes) {
  const Check check("boxesFromCenters");
  check.dtype("boxes", boxes, DType::f32);
  check.rank("boxes", boxes, 3, "N, Q, 4");
  check.size("boxes", boxes, 2, 4, "cx, cy, w, h");
  check.dtype("sizes", sizes, DType::f32);
  check.shape("sizes", sizes, {boxes.size(0), 2}, "height and width of each image");
  check.same_device("sizes", sizes, boxes);
  Tensor corners = Tensor::empty_like(boxes);
  MIXPL_DISPATCH(boxes.device(), boxes_from_centers_forward, boxes, sizes, corners);
  record(corners, {boxes}, [sizes, shape = boxes.shape()](const Tensor& dcorners) {
    Tensor dboxes = Tensor::empty(shape, DType::f32, dcorners.device());
    MIXPL_DISPATCH(dcorners.device(), boxes_from_centers_backward, dcorners, sizes, dboxes);
    return Gradients{dboxes};
  });
  return corners;
}

namespace {
// boxes, sizes.
const bool registered =
    register_op("boxesFromCenters", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2)
        throw ShapeError(str("boxesFromCenters: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{boxes_from_centers(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
