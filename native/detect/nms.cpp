#include "detect/nms.h"

#include "core/check.h"
#include "core/launch.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

Tensor nms(const Tensor& boxes, const Tensor& scores, const Tensor& labels, float iou_thr,
           int64_t most) {
  const Check check("nms");
  as_boxes("nms", "boxes", boxes);
  check.dtype("scores", scores, DType::f32);
  check.shape("scores", scores, {boxes.size(0)}, "one per box");
  check.same_device("scores", scores, boxes);
  if (labels.defined()) {
    check.dtype("labels", labels, DType::i32);
    check.shape("labels", labels, {boxes.size(0)}, "one per box");
    check.same_device("labels", labels, boxes);
  }
  check.in_range("iouThr", iou_thr, 0, 1);
  return MIXPL_DISPATCH(boxes.device(), nms_indices, boxes, scores, labels, iou_thr, most);
}

namespace {
// Inputs: boxes f32 [B, 4], scores f32 [B], then labels i32 [B] if given; { iouThr, most }.
const bool registered = register_op("nms", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 2 && in.size() != 3)
    throw ShapeError(str("nms: needs 2 or 3 tensors, got ", in.size()));
  return std::vector<Tensor>{nms(in[0], in[1], in.size() == 3 ? in[2] : Tensor(),
                                 static_cast<float>(o.number("iouThr", 0.5)),
                                 o.integer("most", -1))};
});
}  // namespace

}  // namespace mixpl
