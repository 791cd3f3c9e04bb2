#include "detect/task_aligned_assigner.h"

#include "core/check.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

void TaskAlignedOptions::validate() const {
  if (top < 1) throw ConfigError(str("train.alignTop must be >= 1, got ", top));
  for (const float exponent : {alpha, beta})
    if (!(exponent >= 0) || !std::isfinite(exponent))
      throw ConfigError(
          str("train.alignAlpha and train.alignBeta must be numbers >= 0, got ", exponent));
}

TaskAlignment assign_task_aligned(const AlignedOutputs& out, const Anchors& anchors,
                                  const Truth& truth, const Tensor& valid,
                                  const TaskAlignedOptions& options) {
  const Check check("assignTaskAligned");
  const Pyramid& pyramid = anchors.pyramid;
  const int64_t images = truth.images(), count = pyramid.count();
  const Device device = anchors.all.device();
  check.same_device("boxes", truth.boxes, anchors.all);
  const int64_t classes = out.scores.empty() ? 0 : out.scores[0].size(-1);
  for (int l = 0; l < pyramid.levels; ++l) {
    check.dtype("scores", out.scores[l], DType::f32);
    check.dtype("predicted", out.boxes[l], DType::f32);
    check.same_device("scores", out.scores[l], anchors.all);
    check.same_device("predicted", out.boxes[l], anchors.all);
    const int64_t rows = images * pyramid.size(l);
    if (out.scores[l].numel() != rows * classes)
      throw ShapeError(str("assignTaskAligned: scores must hold ", rows, " rows (one an anchor), ",
                           "got ", out.scores[l].shape()));
    check.shape("predicted", out.boxes[l], {rows, 4}, "one an anchor");
  }
  if (valid.defined()) {
    check.dtype("valid", valid, DType::u8);
    check.shape("valid", valid, {images, count}, "one an anchor");
    check.same_device("valid", valid, anchors.all);
  }
  TaskAlignment result{Tensor::empty({images, count}, DType::i32, device),
                       per_level(pyramid, images, DType::f32, device)};
  AlignView view{pyramid,
                 reinterpret_cast<const Box*>(anchors.all.data<float>()),
                 valid.defined() ? valid.data<uint8_t>() : nullptr,
                 TruthView(truth),
                 pointers<const float, float>(out.scores),
                 pointers<const Box, float>(out.boxes),
                 {},
                 images,
                 classes,
                 options,
                 result.assigned.data<int32_t>(),
                 pointers<float>(result.quality)};
  for (int l = 0; l < pyramid.levels; ++l) view.unit[l] = static_cast<float>(out.units[l]);
  MIXPL_DISPATCH(device, assign_task_aligned, view, truth.total());
  return result;
}

namespace {
// Inputs: scores, predicted, anchors, boxes, labels, then valid u8 [A] if given; { top, alpha,
// beta }. Outputs: assigned i32 [A], quality f32 [A].
const bool registered =
    register_op("assignTaskAligned", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 5 && in.size() != 6)
        throw ShapeError(str("assignTaskAligned: needs 5 or 6 tensors, got ", in.size()));
      TaskAlignedOptions options;
      options.top = o.integer("top", options.top);
      options.alpha = static_cast<float>(o.number("alpha", options.alpha));
      options.beta = static_cast<float>(o.number("beta", options.beta));
      options.validate();
      const Check check("assignTaskAligned");
      check.dtype("labels", in[4], DType::i32);
      check.rank("scores", in[0], 2, "A, K");
      for (int32_t label : in[4].to_vector<int32_t>())
        if (label < 0 || label >= in[0].size(1))
          throw RangeError(str("assignTaskAligned: labels must be in [0, ", in[0].size(1) - 1,
                               "], got ", label));
      const Truth truth = join_truth("assignTaskAligned", {in[3]}, {in[4]}, in[3].device());
      const Anchors anchors = Anchors::join("assignTaskAligned", {in[2]});
      const int64_t count = in[2].size(0);
      Tensor valid;
      if (in.size() == 6) {
        check.dtype("valid", in[5], DType::u8);
        check.shape("valid", in[5], {count}, "one an anchor");
        valid = in[5].alias({1, count});
      }
      const TaskAlignment a =
          assign_task_aligned({{in[0]}, {in[1]}, {1}}, anchors, truth, valid, options);
      return std::vector<Tensor>{a.assigned.alias({count}), a.quality[0].alias({count})};
    });
}  // namespace

}  // namespace mixpl
