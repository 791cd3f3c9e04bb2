#include "detect/nms.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// Kept boxes of one class, coordinates apart so that one candidate is compared with eight at a
// time.
struct Kept {
  std::vector<float> x1, y1, x2, y2, area;

  bool suppresses(Box b, float own, float thr) const {
    const size_t n = x1.size();
    constexpr size_t kBlock = 32;
    for (size_t begin = 0; begin < n; begin += kBlock) {
      const size_t end = std::min(n, begin + kBlock);
      int hit = 0;
      for (size_t i = begin; i < end; ++i) {
        const float w = std::max(std::min(b.x2, x2[i]) - std::max(b.x1, x1[i]), 0.0f);
        const float h = std::max(std::min(b.y2, y2[i]) - std::max(b.y1, y1[i]), 0.0f);
        const float inter = w * h, whole = own + area[i] - inter;
        // inter / whole > thr without a division by zero: 0 / 0 suppresses nothing.
        hit |= (whole > 0) & (inter / whole > thr);
      }
      if (hit) return true;
    }
    return false;
  }
  void add(Box b, float own) {
    x1.push_back(b.x1);
    y1.push_back(b.y1);
    x2.push_back(b.x2);
    y2.push_back(b.y2);
    area.push_back(own);
  }
};

}  // namespace

std::vector<int32_t> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                         const std::vector<int32_t>& labels, float iou_thr, int64_t most) {
  std::vector<int32_t> order(boxes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  std::unordered_map<int32_t, Kept> kept;
  std::vector<int32_t> out;
  for (int32_t i : order) {
    if (most >= 0 && static_cast<int64_t>(out.size()) >= most) break;
    Kept& mates = kept[labels.empty() ? 0 : labels[i]];
    const float own = box_area(boxes[i]);
    if (mates.suppresses(boxes[i], own, iou_thr)) continue;
    mates.add(boxes[i], own);
    out.push_back(i);
  }
  return out;
}

namespace {
// Inputs: boxes f32 [B, 4], scores f32 [B], then labels i32 [B] if given; { iouThr, most }.
const bool registered = register_op("nms", [](const std::vector<Tensor>& in, const Options& o) {
  const Check check("nms");
  if (in.size() != 2 && in.size() != 3)
    throw ShapeError(str("nms: needs 2 or 3 tensors, got ", in.size()));
  check.dtype("boxes", in[0], DType::f32);
  check.rank("boxes", in[0], 2, "B, 4");
  check.size("boxes", in[0], 1, 4, "xyxy");
  const int64_t n = in[0].size(0);
  check.dtype("scores", in[1], DType::f32);
  check.shape("scores", in[1], {n}, "one a box");
  std::vector<int32_t> labels;
  if (in.size() == 3) {
    check.dtype("labels", in[2], DType::i32);
    check.shape("labels", in[2], {n}, "one a box");
    labels = in[2].to_vector<int32_t>();
  }
  const double thr = o.number("iouThr", 0.5);
  check.in_range("iouThr", thr, 0, 1);
  const Box* b = reinterpret_cast<const Box*>(in[0].data<float>());
  const std::vector<int32_t> kept = nms(std::vector<Box>(b, b + n), in[1].to_vector<float>(),
                                        labels, static_cast<float>(thr), o.integer("most", -1));
  return std::vector<Tensor>{Tensor::from(kept, {static_cast<int64_t>(kept.size())})};
});
}  // namespace

}  // namespace mixpl
