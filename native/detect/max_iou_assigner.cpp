#include "detect/max_iou_assigner.h"

#include "core/check.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

void MaxIouOptions::validate() const {
  const auto share = [](const char* name, float value) {
    if (!(value >= 0 && value <= 1))
      throw ConfigError(str("assign.", name, " must be in [0, 1], got ", value));
  };
  share("posIou", pos_iou);
  share("negIou", neg_iou);
  share("minPosIou", min_pos_iou);
  if (neg_iou > pos_iou)
    throw ConfigError(str("assign.negIou must be at most posIou (", pos_iou, "), got ", neg_iou));
}

Tensor assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                      const MaxIouOptions& options) {
  const Check check("assignMaxIou");
  check.dtype("anchors", anchors, DType::f32);
  const int64_t n = truth.images();
  if (anchors.rank() < 2 || anchors.rank() > 3 || anchors.size(-1) != 4 ||
      (anchors.rank() == 3 && anchors.size(0) != n))
    throw ShapeError(
        str("assignMaxIou: anchors must be [A, 4] or [", n, ", A, 4], got ", anchors.shape()));
  const int64_t a = anchors.size(-2);
  if (a > INT32_MAX)
    throw ShapeError(str("assignMaxIou: anchors must be below 2^31 per image, got ", a));
  check.same_device("anchors", anchors, truth.boxes);
  if (valid.defined()) {
    check.dtype("valid", valid, DType::u8);
    check.shape("valid", valid, {n, a}, "one an anchor");
    check.same_device("valid", valid, anchors);
  }
  Tensor assigned = Tensor::empty({n, a}, DType::i32, anchors.device());
  MIXPL_DISPATCH(anchors.device(), assign_max_iou, anchors, truth, valid, options, assigned);
  return assigned;
}

std::vector<int32_t> assign_max_iou(const Tensor& anchors, const Tensor& boxes,
                                    const std::vector<uint8_t>& valid,
                                    const MaxIouOptions& options) {
  const int64_t a = anchors.size(0);
  if (!valid.empty() && static_cast<int64_t>(valid.size()) != a)
    throw ShapeError(
        str("assignMaxIou: valid must be [", a, "] (one an anchor), got [", valid.size(), "]"));
  const Tensor flags = valid.empty() ? Tensor() : Tensor::from(valid, {1, a});
  return assign_max_iou(anchors, join_unlabelled("assignMaxIou", boxes), flags, options)
      .to_vector<int32_t>();
}

namespace {
// Inputs: anchors, boxes, then valid u8 [A] if given; options as MaxIouOptions. Output: i32 [A].
const bool registered =
    register_op("assignMaxIou", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 2 && in.size() != 3)
        throw ShapeError(str("assignMaxIou: needs 2 or 3 tensors, got ", in.size()));
      MaxIouOptions options;
      options.pos_iou = static_cast<float>(o.number("posIou", options.pos_iou));
      options.neg_iou = static_cast<float>(o.number("negIou", options.neg_iou));
      options.min_pos_iou = static_cast<float>(o.number("minPosIou", options.min_pos_iou));
      options.match_low_quality = o.boolean("matchLowQuality", true);
      const std::string mode = o.text("lowQuality", "overwrite");
      if (mode != "overwrite" && mode != "restoreBest")
        throw ConfigError(
            str("assignMaxIou: lowQuality must be 'overwrite' or 'restoreBest', got '", mode, "'"));
      if (mode == "restoreBest") options.low_quality = LowQuality::restore_best;
      options.validate();
      as_boxes("assignMaxIou", "anchors", in[0]);
      as_boxes("assignMaxIou", "boxes", in[1]);
      const int64_t a = in[0].size(0);
      Tensor valid;
      if (in.size() == 3) {
        Check("assignMaxIou").dtype("valid", in[2], DType::u8);
        Check("assignMaxIou").shape("valid", in[2], {a}, "one an anchor");
        valid = in[2].alias({1, a});
      }
      const Truth truth = join_unlabelled("assignMaxIou", in[1]);
      return std::vector<Tensor>{assign_max_iou(in[0], truth, valid, options).alias({a})};
    });
}  // namespace

}  // namespace mixpl
