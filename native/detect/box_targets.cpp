#include "detect/box_targets.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/max_iou_assigner.h"
#include "ops/registry.h"

namespace mixpl {

int64_t BoxTargets::average_factor() const {
  return std::accumulate(positives.begin(), positives.end(), int64_t{0},
                         [](int64_t sum, int64_t n) { return sum + std::max<int64_t>(n, 1); });
}

BoxTargets box_targets(const std::vector<Tensor>& anchors, const std::vector<Tensor>& boxes,
                       const std::vector<Tensor>& labels,
                       const std::vector<std::vector<int32_t>>& assigned, int64_t classes) {
  const Check check("boxTargets");
  const int64_t images = static_cast<int64_t>(boxes.size());
  if (labels.size() != boxes.size() || assigned.size() != boxes.size())
    throw ShapeError(str("boxTargets: labels and assigned must have one entry per image (", images,
                         "), got ", labels.size(), " and ", assigned.size()));
  BoxTargets out;
  int64_t total = 0;
  for (const Tensor& level : anchors) {
    as_boxes("boxTargets", "anchors", level);
    out.labels.push_back(Tensor::empty({images, level.size(0)}, DType::i32));
    out.boxes.push_back(Tensor::empty({images, level.size(0), 4}, DType::f32));
    out.positive.push_back(Tensor::empty({images, level.size(0)}, DType::f32));
    total += level.size(0);
  }
  for (int64_t n = 0; n < images; ++n) {
    const Box* box = as_boxes("boxTargets", "boxes", boxes[n]);
    check.dtype("labels", labels[n], DType::i32);
    check.shape("labels", labels[n], {boxes[n].size(0)}, "one a box");
    const int32_t* box_label = labels[n].data<int32_t>();
    const std::vector<int32_t>& mine = assigned[n];
    if (static_cast<int64_t>(mine.size()) != total)
      throw ShapeError(str("boxTargets: assigned must hold ", total,
                           " entries (one an anchor), got ", mine.size()));
    out.positives.push_back(
        std::count_if(mine.begin(), mine.end(), [](int32_t i) { return i >= 0; }));
    int64_t first = 0;
    for (size_t l = 0; l < anchors.size(); ++l) {
      const int64_t count = anchors[l].size(0);
      int32_t* label = out.labels[l].data<int32_t>() + n * count;
      Box* target = reinterpret_cast<Box*>(out.boxes[l].data<float>()) + n * count;
      float* positive = out.positive[l].data<float>() + n * count;
      parallel_for(count, int64_t{16384}, [&](int64_t i) {
        const int32_t j = mine[first + i];
        label[i] = j >= 0 ? box_label[j] : j == kIgnored ? -1 : static_cast<int32_t>(classes);
        target[i] = j >= 0 ? box[j] : Box{0, 0, 0, 0};
        positive[i] = j >= 0 ? 1.0f : 0.0f;
      });
      first += count;
    }
  }
  return out;
}

std::vector<Tensor> anchor_centerness(const std::vector<Tensor>& anchors,
                                      const BoxTargets& targets) {
  std::vector<Tensor> out;
  for (size_t l = 0; l < anchors.size(); ++l) {
    const int64_t count = anchors[l].size(0);
    const Box* anchor = as_boxes("anchorCenterness", "anchors", anchors[l]);
    const Box* box = reinterpret_cast<const Box*>(targets.boxes[l].data<float>());
    const float* positive = targets.positive[l].data<float>();
    Tensor centerness = Tensor::empty(targets.positive[l].shape(), DType::f32);
    float* to = centerness.data<float>();
    parallel_for(centerness.numel(), int64_t{16384}, [=](int64_t i) {
      const Box a = anchor[i % count];
      to[i] = positive[i] > 0
                  ? centerness_of(encode_sides((a.x1 + a.x2) * 0.5f, (a.y1 + a.y2) * 0.5f, box[i]))
                  : 0.0f;
    });
    out.push_back(centerness);
  }
  return out;
}

double sum_of(const std::vector<Tensor>& tensors) {
  double sum = 0;
  for (const Tensor& t : tensors) {
    const float* x = t.data<float>();
    sum += parallel_sum(t.numel(), [x](int64_t i) { return double(x[i]); });
  }
  return sum;
}

namespace {
// Inputs: boxes, labels, assigned i32 [A] of one image, then the anchors of each level; { classes
// }. Outputs: labels, boxes, positive, centre-ness of every level in turn.
const bool registered =
    register_op("boxTargets", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() < 3)
        throw ShapeError(
            str("boxTargets: needs boxes, labels, assigned and the anchors of each "
                "level, got ",
                in.size(), " tensors"));
      const Check check("boxTargets");
      check.dtype("assigned", in[2], DType::i32);
      as_boxes("boxTargets", "boxes", in[0]);
      const std::vector<int32_t> assigned = in[2].to_vector<int32_t>();
      for (int32_t j : assigned) check.in_range("assigned", j, kIgnored, double(in[0].size(0) - 1));
      const std::vector<Tensor> anchors(in.begin() + 3, in.end());
      const BoxTargets targets =
          box_targets(anchors, {in[0]}, {in[1]}, {assigned}, o.integer("classes", 1));
      const std::vector<Tensor> centerness = anchor_centerness(anchors, targets);
      std::vector<Tensor> out;
      for (size_t l = 0; l < anchors.size(); ++l)
        out.insert(out.end(),
                   {targets.labels[l], targets.boxes[l], targets.positive[l], centerness[l]});
      return out;
    });
}  // namespace

}  // namespace mixpl
