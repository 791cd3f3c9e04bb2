#include "detect/box_decoder.h"

#include "core/check.h"
#include "detect/box_iou.h"

namespace mixpl {
namespace {

// A decoder of `values`, `each` numbers per box.
BoxDecoder decoder_of(BoxCoding coding, const char* name, const Tensor& values, int64_t images,
                      int64_t count, int64_t each) {
  Check("densePostProcess").floating(name, values);
  if (values.numel() != images * count * each)
    throw ShapeError(str("densePostProcess: ", name, " must hold ", images * count, " x ", each,
                         " numbers, got ", values.shape()));
  BoxDecoder out;
  out.coding = coding;
  out.values = values;
  out.count = count;
  return out;
}

}  // namespace

BoxDecoderView BoxDecoder::view() const {
  const auto floats = [](const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; };
  return {coding,
          Numbers::of(values),
          count,
          reinterpret_cast<const Box*>(floats(anchors)),
          coder,
          grid,
          unit,
          floats(bin_values),
          bin_values.defined() ? bin_values.numel() : 0};
}

void BoxDecoder::note(size_t level, std::vector<Tensor>& inputs, Trace::Numbers& numbers) const {
  inputs.insert(inputs.end(), {values, anchors, bin_values});
  const auto add = [&](const char* name, double value) { numbers[str(name, level)] = value; };
  add("coding", static_cast<double>(coding));
  add("unit", unit);
  add("height", static_cast<double>(grid.height));
  add("width", static_cast<double>(grid.width));
  add("strideX", grid.stride_x);
  add("strideY", grid.stride_y);
  add("offset", grid.offset);
  add_numbers(numbers, coder, str(level));
}

BoxDecoder delta_decoder(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                         int64_t images) {
  as_boxes("densePostProcess", "anchors", anchors);
  BoxDecoder out = decoder_of(BoxCoding::deltas, "deltas", deltas, images, anchors.size(0), 4);
  out.anchors = anchors;
  out.coder = coder;
  return out;
}

BoxDecoder side_decoder(const Tensor& sides, const PointGrid& grid, int64_t images) {
  BoxDecoder out = decoder_of(BoxCoding::sides, "sides", sides, images, grid.count(), 4);
  out.grid = grid;
  out.unit = static_cast<float>(grid.unit);
  return out;
}

BoxDecoder corner_decoder(const Tensor& boxes, float unit, int64_t images) {
  const int64_t count = boxes.numel() / std::max<int64_t>(4 * images, 1);
  BoxDecoder out = decoder_of(BoxCoding::corners, "boxes", boxes, images, count, 4);
  out.unit = unit;
  return out;
}

BoxDecoder distribution_decoder(const Tensor& logits, const Tensor& anchors,
                                const Tensor& bin_values, float unit, int64_t images) {
  as_boxes("densePostProcess", "anchors", anchors);
  const Check check("densePostProcess");
  check.dtype("binValues", bin_values, DType::f32);
  BoxDecoder out = decoder_of(BoxCoding::distributions, "logits of sides", logits, images,
                              anchors.size(0), 4 * bin_values.numel());
  out.anchors = anchors;
  out.unit = unit;
  out.bin_values = bin_values;
  return out;
}

}  // namespace mixpl
