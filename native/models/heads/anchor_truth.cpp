#include "models/heads/anchor_truth.h"

#include "core/check.h"

namespace mixpl {

AnchorTruth anchor_truth(const ImageBatch& images, const std::vector<Target>& targets,
                         const std::vector<Tensor>& maps, AnchorGenerator& anchors,
                         int64_t classes) {
  return {anchors.levels(maps), anchors.options().strides,
          valid_anchors(anchors.options(), maps, images), truth_of(images, targets), classes};
}

AnchorHeadCase read_anchor_head_case(const char* op, const std::vector<Tensor>& in,
                                     const Options& options, bool with_quality) {
  const Check check(op);
  AnchorOptions anchors;
  anchors.strides = options.numbers("strides", anchors.strides);
  anchors.ratios = {1};
  anchors.scales = {options.number("octaveBaseScale", 8)};
  anchors.validate();
  AnchorHeadCase c;
  c.truth.strides = anchors.strides;
  c.truth.classes = options.integer("classes", 1);
  check.in_range("classes", static_cast<double>(c.truth.classes), 1, 1 << 16);

  const size_t levels = anchors.strides.size(), per_level = with_quality ? 3 : 2;
  const size_t maps = levels * per_level;
  if (in.size() < maps || (in.size() - maps) % 2 != 0)
    throw ShapeError(str(op, ": needs ", per_level, " tensors of each of ", levels,
                         " levels, then boxes and labels per image, got ", in.size(), " tensors"));
  const int64_t images = static_cast<int64_t>((in.size() - maps) / 2);
  for (size_t l = 0; l < levels; ++l) {
    const Tensor& logits = in[l * per_level];
    check.floating("logits", logits);
    check.rank("logits", logits, 4, "N, H, W, C");
    check.shape("logits", logits, {images, logits.size(1), logits.size(2), c.truth.classes},
                "N, H, W, C");
    c.out.logits.push_back(logits);
    for (size_t k = 1; k < per_level; ++k) {
      const Tensor& map = in[l * per_level + k];
      const char* name = k == 1 ? "boxes" : "quality";
      check.dtype(name, map, logits.dtype());
      check.rank(name, map, 4, "N, H, W, ...");
      if (drop_last(map.shape()) != drop_last(logits.shape()))
        throw ShapeError(str(op, ": ", name, " must have the cells of logits ", logits.shape(),
                             ", got ", map.shape()));
      (k == 1 ? c.out.boxes : c.out.quality).push_back(map);
    }
  }
  c.truth.anchors = AnchorGenerator(anchors).levels(c.out.logits);
  std::vector<Tensor> boxes, labels;
  for (size_t i = maps; i < in.size(); i += 2) {
    check.dtype("labels", in[i + 1], DType::i32);
    for (int32_t label : in[i + 1].to_vector<int32_t>())
      check.in_range("labels", label, 0, static_cast<double>(c.truth.classes - 1));
    boxes.push_back(in[i]);
    labels.push_back(in[i + 1]);
  }
  c.truth.truth = join_truth(op, boxes, labels, in[0].device());
  const std::vector<double> heights = options.numbers("padHeights", {}),
                            widths = options.numbers("padWidths", {});
  if (heights.empty() && widths.empty()) return c;
  if (static_cast<int64_t>(heights.size()) != images || widths.size() != heights.size())
    throw ShapeError(str(op, ": padHeights and padWidths must hold one number per image (", images,
                         "), got ", heights.size(), " and ", widths.size()));
  std::vector<std::array<float, 2>> pads;
  for (int64_t n = 0; n < images; ++n)
    pads.push_back({static_cast<float>(heights[n]), static_cast<float>(widths[n])});
  c.truth.valid = valid_anchors(anchors, c.out.logits, pads);
  return c;
}

std::vector<Tensor> tensors_of(const Losses& losses) {
  std::vector<Tensor> out;
  for (const auto& [name, loss] : losses) out.push_back(loss);
  return out;
}

}  // namespace mixpl
