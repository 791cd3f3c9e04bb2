#include "detect/box_iou.h"

#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"

namespace mixpl {

IouKind parse_iou_kind(const char* op, const std::string& text) {
  if (text == "iou") return IouKind::iou;
  if (text == "giou") return IouKind::giou;
  if (text == "diou") return IouKind::diou;
  if (text == "ciou") return IouKind::ciou;
  throw ConfigError(str(op, ": kind must be 'iou', 'giou', 'diou' or 'ciou', got '", text, "'"));
}

const Box* as_boxes(const char* op, const char* name, const Tensor& boxes) {
  const Check check(op);
  check.dtype(name, boxes, DType::f32);
  check.rank(name, boxes, 2, "B, 4");
  check.size(name, boxes, 1, 4, "xyxy");
  return reinterpret_cast<const Box*>(boxes.data<float>());
}

Tensor pairwise_iou(const Tensor& a, const Tensor& b, IouKind kind) {
  as_boxes("boxIou", "a", a);
  as_boxes("boxIou", "b", b);
  Check("boxIou").same_device("b", b, a);
  Tensor out = Tensor::empty({a.size(0), b.size(0)}, DType::f32, a.device());
  MIXPL_DISPATCH(a.device(), pairwise_iou, a, b, kind, out);
  return out;
}

namespace {
// Inputs: a, b; { kind }.
const bool registered = register_op("boxIou", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 2) throw ShapeError(str("boxIou: needs 2 tensors, got ", in.size()));
  return std::vector<Tensor>{
      pairwise_iou(in[0], in[1], parse_iou_kind("boxIou", o.text("kind", "iou")))};
});
}  // namespace

}  // namespace mixpl
