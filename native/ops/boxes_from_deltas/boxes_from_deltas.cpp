#include "ops/boxes_from_deltas/boxes_from_deltas.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

Tensor boxes_from_deltas(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder) {
  const Check check("boxesFromDeltas");
  check.floating("deltas", deltas);
  as_boxes("boxesFromDeltas", "anchors", anchors);
  check.same_device("anchors", anchors, deltas);
  if (anchors.numel() == 0 ? deltas.numel() != 0 : deltas.numel() % anchors.numel() != 0)
    throw ShapeError(str("boxesFromDeltas: deltas must hold 4 numbers for each anchor of ",
                         anchors.shape(), " and image, got ", deltas.shape()));
  Tensor boxes = Tensor::empty({deltas.numel() / 4, 4}, DType::f32, deltas.device());
  MIXPL_DISPATCH(deltas.device(), boxes_from_deltas_forward, deltas, anchors, coder, boxes);
  record(boxes, {deltas}, [=](const Tensor& dboxes) {
    Tensor ddeltas = Tensor::empty_like(deltas);
    MIXPL_DISPATCH(deltas.device(), boxes_from_deltas_backward, dboxes, deltas, anchors, coder,
                   ddeltas);
    return Gradients{ddeltas};
  });
  return boxes;
}

namespace {
// Inputs: deltas, anchors; options as the coder's.
const bool registered =
    register_op("boxesFromDeltas", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2)
        throw ShapeError(str("boxesFromDeltas: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{
          boxes_from_deltas(in[0], in[1], read_delta_coder("boxesFromDeltas", o))};
    });
}  // namespace

}  // namespace mixpl
