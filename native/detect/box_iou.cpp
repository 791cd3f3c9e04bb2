#include "detect/box_iou.h"

#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
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
  const Box *left = as_boxes("boxIou", "a", a), *right = as_boxes("boxIou", "b", b);
  const int64_t n = b.size(0);
  Tensor out = Tensor::empty({a.size(0), n}, DType::f32);
  float* values = out.data<float>();
  const auto rows = [&](auto similarity) {
    parallel_for(a.size(0), std::max<int64_t>(1, 8192 / std::max<int64_t>(n, 1)), [&](int64_t i) {
      const Box box = left[i];
      for (int64_t j = 0; j < n; ++j) values[i * n + j] = similarity(box, right[j]);
    });
  };
  if (kind == IouKind::iou)
    rows([](Box x, Box y) { return box_iou(x, y); });
  else
    rows([kind](Box x, Box y) { return box_similarity(x, y, kind); });
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
