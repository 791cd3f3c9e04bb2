#include "detect/box_coder.h"

#include "core/check.h"
#include "core/parallel.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_boxes(const Check& check, const char* name, const Tensor& t) {
  check.dtype(name, t, DType::f32);
  check.rank(name, t, 2, "B, 4");
  check.size(name, t, 1, 4, "xyxy");
}

DeltaCoder read_coder(const Options& o) {
  DeltaCoder coder;
  const std::vector<double> means = o.numbers("means", {0, 0, 0, 0}),
                            stds = o.numbers("stds", {1, 1, 1, 1});
  if (means.size() != 4 || stds.size() != 4)
    throw RangeError("boxCoder: means and stds must hold 4 numbers each");
  for (int i = 0; i < 4; ++i) {
    coder.means[i] = static_cast<float>(means[i]);
    coder.stds[i] = static_cast<float>(stds[i]);
    if (!(stds[i] > 0)) throw RangeError(str("boxCoder: stds must be > 0, got ", stds[i]));
  }
  coder.both_sides = o.boolean("bothSides", true);
  return coder;
}

const bool registered =
    register_op("encodeBoxes",
                [](const std::vector<Tensor>& in, const Options& o) {
                  if (in.size() != 2)
                    throw ShapeError(str("encodeBoxes: needs 2 tensors, got ", in.size()));
                  return std::vector<Tensor>{encode_boxes(in[0], in[1], read_coder(o))};
                }) &&
    register_op("decodeBoxes",
                [](const std::vector<Tensor>& in, const Options& o) {
                  if (in.size() != 2)
                    throw ShapeError(str("decodeBoxes: needs 2 tensors, got ", in.size()));
                  return std::vector<Tensor>{decode_boxes(in[0], in[1], read_coder(o))};
                }) &&
    register_op("boxIou", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("boxIou: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{pairwise_iou(in[0], in[1])};
    });

}  // namespace

Tensor encode_boxes(const Tensor& anchors, const Tensor& boxes, const DeltaCoder& coder) {
  const Check check("encodeBoxes");
  check_boxes(check, "anchors", anchors);
  check.dtype("boxes", boxes, DType::f32);
  check.shape("boxes", boxes, anchors.shape(), "one an anchor");
  Tensor out = Tensor::empty_like(boxes);
  const Box *a = reinterpret_cast<const Box*>(anchors.data<float>()),
            *b = reinterpret_cast<const Box*>(boxes.data<float>());
  Delta* d = reinterpret_cast<Delta*>(out.data<float>());
  parallel_for(anchors.size(0), [&](int64_t i) { d[i] = coder.encode(a[i], b[i]); });
  return out;
}

Tensor decode_boxes(const Tensor& anchors, const Tensor& deltas, const DeltaCoder& coder) {
  const Check check("decodeBoxes");
  check_boxes(check, "anchors", anchors);
  check.dtype("deltas", deltas, DType::f32);
  check.shape("deltas", deltas, anchors.shape(), "one an anchor");
  Tensor out = Tensor::empty_like(deltas);
  const Box* a = reinterpret_cast<const Box*>(anchors.data<float>());
  const Delta* d = reinterpret_cast<const Delta*>(deltas.data<float>());
  Box* b = reinterpret_cast<Box*>(out.data<float>());
  parallel_for(anchors.size(0), [&](int64_t i) { b[i] = coder.decode(a[i], d[i]); });
  return out;
}

Tensor pairwise_iou(const Tensor& a, const Tensor& b) {
  const Check check("boxIou");
  check_boxes(check, "a", a);
  check_boxes(check, "b", b);
  Tensor out = Tensor::empty({a.size(0), b.size(0)}, DType::f32);
  const Box *pa = reinterpret_cast<const Box*>(a.data<float>()),
            *pb = reinterpret_cast<const Box*>(b.data<float>());
  float* iou = out.data<float>();
  const int64_t n = b.size(0);
  parallel_for(a.size(0), std::max<int64_t>(1, 4096 / std::max<int64_t>(n, 1)), [&](int64_t i) {
    for (int64_t j = 0; j < n; ++j) iou[i * n + j] = box_iou(pa[i], pb[j]);
  });
  return out;
}

}  // namespace mixpl
