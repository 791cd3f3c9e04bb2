#include "detect/box_coder.h"

#include <cmath>

#include "core/check.h"
#include "core/launch.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

using Code = CodeRowsView::Code;

Tensor code_rows(Code code, const Tensor& references, const Tensor& values,
                 const DeltaCoder& deltas, const DistanceCoder& distances) {
  Tensor out = Tensor::empty_like(values);
  const CodeRowsView view{
      code, references.data<float>(), values.data<float>(), out.data<float>(), deltas, distances};
  MIXPL_DISPATCH(values.device(), code_rows, values.size(0), view);
  return out;
}

void check_points(const Check& check, const Tensor& points, const char* name,
                  const Tensor& values) {
  check.dtype("points", points, DType::f32);
  check.rank("points", points, 2, "B, 2");
  check.size("points", points, 1, 2, "x, y");
  check.dtype(name, values, DType::f32);
  check.shape(name, values, {points.size(0), 4}, "one a point");
  check.same_device(name, values, points);
}

DistanceCoder read_distance_coder(const char* op, const Options& o) {
  DistanceCoder coder;
  const double most = o.number("most", 0);
  if (!(most >= 0)) throw RangeError(str(op, ": most must be >= 0, got ", most));
  coder.most = static_cast<float>(most);
  return coder;
}

template <typename F>
bool register_pair_op(const char* name, F f) {
  return register_op(name, [name, f](const std::vector<Tensor>& in, const Options& o) {
    if (in.size() != 2) throw ShapeError(str(name, ": needs 2 tensors, got ", in.size()));
    return std::vector<Tensor>{f(in[0], in[1], o)};
  });
}

// Inputs: anchors or points, and what belongs to them; options as the coders'.
const bool registered =
    register_pair_op("encodeBoxes",
                     [](const Tensor& a, const Tensor& b, const Options& o) {
                       return encode_boxes(a, b, read_delta_coder("encodeBoxes", o));
                     }) &&
    register_pair_op("decodeBoxes",
                     [](const Tensor& a, const Tensor& b, const Options& o) {
                       return decode_boxes(a, b, read_delta_coder("decodeBoxes", o));
                     }) &&
    register_pair_op("encodeDistances",
                     [](const Tensor& a, const Tensor& b, const Options& o) {
                       return encode_distances(a, b, read_distance_coder("encodeDistances", o));
                     }) &&
    register_pair_op("decodeDistances", [](const Tensor& a, const Tensor& b, const Options& o) {
      return decode_distances(a, b, read_distance_coder("decodeDistances", o));
    });

}  // namespace

void add_numbers(Trace::Numbers& numbers, const DeltaCoder& coder, const std::string& suffix) {
  numbers["limit" + suffix] = coder.limit;
  numbers["bothSides" + suffix] = coder.both_sides;
  for (int i = 0; i < 4; ++i) {
    numbers[str("mean", i, ".", suffix)] = coder.means[i];
    numbers[str("std", i, ".", suffix)] = coder.stds[i];
  }
}

DeltaCoder read_delta_coder(const char* op, const Options& o) {
  DeltaCoder coder;
  const std::vector<double> means = o.numbers("means", {0, 0, 0, 0}),
                            stds = o.numbers("stds", {1, 1, 1, 1});
  if (means.size() != 4 || stds.size() != 4)
    throw RangeError(str(op, ": means and stds must hold 4 numbers each"));
  for (int i = 0; i < 4; ++i) {
    coder.means[i] = static_cast<float>(means[i]);
    coder.stds[i] = static_cast<float>(stds[i]);
    if (!std::isfinite(means[i]))
      throw RangeError(str(op, ": means must be finite, got ", means[i]));
    if (!(stds[i] > 0) || !std::isfinite(stds[i]))
      throw RangeError(str(op, ": stds must be > 0, got ", stds[i]));
  }
  const double limit = o.number("limit", coder.limit);
  if (!(limit > 0)) throw RangeError(str(op, ": limit must be > 0, got ", limit));
  coder.limit = static_cast<float>(limit);
  coder.both_sides = o.boolean("bothSides", true);
  return coder;
}

Tensor encode_boxes(const Tensor& anchors, const Tensor& boxes, const DeltaCoder& coder) {
  const Check check("encodeBoxes");
  as_boxes("encodeBoxes", "anchors", anchors);
  check.dtype("boxes", boxes, DType::f32);
  check.shape("boxes", boxes, anchors.shape(), "one an anchor");
  check.same_device("boxes", boxes, anchors);
  return code_rows(Code::encode_deltas, anchors, boxes, coder, {});
}

Tensor decode_boxes(const Tensor& anchors, const Tensor& deltas, const DeltaCoder& coder) {
  const Check check("decodeBoxes");
  as_boxes("decodeBoxes", "anchors", anchors);
  check.dtype("deltas", deltas, DType::f32);
  check.shape("deltas", deltas, anchors.shape(), "one an anchor");
  check.same_device("deltas", deltas, anchors);
  return code_rows(Code::decode_deltas, anchors, deltas, coder, {});
}

Tensor encode_distances(const Tensor& points, const Tensor& boxes, const DistanceCoder& coder) {
  check_points(Check("encodeDistances"), points, "boxes", boxes);
  return code_rows(Code::encode_distances, points, boxes, {}, coder);
}

Tensor decode_distances(const Tensor& points, const Tensor& distances, const DistanceCoder& coder) {
  check_points(Check("decodeDistances"), points, "distances", distances);
  return code_rows(Code::decode_distances, points, distances, {}, coder);
}

}  // namespace mixpl
