#include "ops/centers_from_deltas/centers_from_deltas.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor centers_from_deltas(const Tensor& deltas, const Tensor& references,
                           const DeltaCoder& coder) {
  const Check check("centersFromDeltas");
  check.floating("deltas", deltas);
  check.rank("deltas", deltas, 3, "N, Q, 4");
  check.size("deltas", deltas, 2, 4, "cx, cy, w, h");
  check.dtype("references", references, DType::f32);
  check.shape("references", references, deltas.shape(), "a box for each of deltas");
  check.same_device("references", references, deltas);
  Tensor boxes = Tensor::empty(deltas.shape(), DType::f32, deltas.device());
  MIXPL_DISPATCH(deltas.device(), centers_from_deltas_forward, deltas, references, coder, boxes);
  record(boxes, {deltas, references}, [=](const Tensor& dboxes) {
    Tensor ddeltas, dreferences;
    if (deltas.requires_grad()) ddeltas = Tensor::empty_like(deltas);
    if (references.requires_grad()) dreferences = Tensor::empty_like(references);
    MIXPL_DISPATCH(deltas.device(), centers_from_deltas_backward, dboxes, deltas, references, coder,
                   ddeltas, dreferences);
    return Gradients{ddeltas, dreferences};
  });
  if (is_traced()) {
    Trace::Numbers numbers{{"limit", coder.limit}};
    for (int i = 0; i < 4; ++i) {
      numbers[str("mean", i, ".")] = coder.means[i];
      numbers[str("std", i, ".")] = coder.stds[i];
    }
    note("centersFromDeltas", {deltas, references}, {boxes}, std::move(numbers));
  }
  return boxes;
}

namespace {
// deltas, references; options as the coder's.
const bool registered =
    register_op("centersFromDeltas", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2)
        throw ShapeError(str("centersFromDeltas: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{
          centers_from_deltas(in[0], in[1], read_delta_coder("centersFromDeltas", o))};
    });
}  // namespace

}  // namespace mixpl
