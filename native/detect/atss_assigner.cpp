#include "detect/atss_assigner.h"

#include "core/check.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

void AtssOptions::validate() const {
  if (top_k < 1 || top_k > 1 << 16)
    throw ConfigError(str("train.topK must be in [1, 65536], got ", top_k));
}

Tensor assign_atss(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                   const AtssOptions& options) {
  const Check check("assignAtss");
  const int64_t images = truth.images(), count = anchors.pyramid.count();
  check.same_device("boxes", truth.boxes, anchors.all);
  if (count > INT32_MAX)
    throw ShapeError(str("assignAtss: anchors must be below 2^31 per image, got ", count));
  if (valid.defined()) {
    check.dtype("valid", valid, DType::u8);
    check.shape("valid", valid, {images, count}, "one an anchor");
    check.same_device("valid", valid, anchors.all);
  }
  Tensor assigned = Tensor::empty({images, count}, DType::i32, anchors.all.device());
  const AtssView view{anchors.pyramid,
                      reinterpret_cast<const Box*>(anchors.all.data<float>()),
                      valid.defined() ? valid.data<uint8_t>() : nullptr,
                      TruthView(truth),
                      images,
                      options.top_k,
                      assigned.data<int32_t>()};
  MIXPL_DISPATCH(assigned.device(), assign_atss, view, truth.total());
  return assigned;
}

namespace {
// Inputs: boxes, valid u8 [A] or [0], then the anchors of each level; { topK }. Output: i32 [A].
const bool registered =
    register_op("assignAtss", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() < 2)
        throw ShapeError(str("assignAtss: needs boxes, valid and the anchors of each level, got ",
                             in.size(), " tensors"));
      AtssOptions options;
      options.top_k = o.integer("topK", options.top_k);
      options.validate();
      const Check check("assignAtss");
      check.dtype("valid", in[1], DType::u8);
      const Truth truth = join_unlabelled("assignAtss", in[0]);
      const Anchors anchors = Anchors::join("assignAtss", {in.begin() + 2, in.end()});
      const int64_t count = anchors.pyramid.count();
      Tensor valid;
      if (in[1].numel() > 0) {
        check.shape("valid", in[1], {count}, "one an anchor");
        valid = in[1].alias({1, count});
      }
      return std::vector<Tensor>{assign_atss(anchors, truth, valid, options).alias({count})};
    });
}  // namespace

}  // namespace mixpl
