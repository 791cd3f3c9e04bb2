#include "detect/dense_targets.h"

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {

int64_t DenseTargets::average_factor() const {
  return std::accumulate(positives.begin(), positives.end(), int64_t{0},
                         [](int64_t sum, int64_t n) { return sum + std::max<int64_t>(n, 1); });
}

DenseTargets assign_dense_targets(const std::vector<Tensor>& anchors,
                                  const std::vector<Tensor>& boxes,
                                  const std::vector<Tensor>& labels,
                                  const std::vector<std::vector<uint8_t>>& valid, int64_t classes,
                                  const DeltaCoder* coder, const MaxIouOptions& options) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  const size_t levels = anchors.size();
  if (static_cast<int64_t>(labels.size()) != n || (!valid.empty() && valid.size() != boxes.size()))
    throw ShapeError(str("denseTargets: labels and valid must have one entry per image (", n,
                         "), got ", labels.size(), " and ", valid.size()));
  DenseTargets out;
  std::vector<int64_t> first{0};
  for (const Tensor& level : anchors) {
    as_boxes("denseTargets", "anchors", level);
    out.labels.push_back(Tensor::empty({n, level.size(0)}, DType::i32));
    out.boxes.push_back(Tensor::empty({n, level.size(0), 4}, DType::f32));
    out.weights.push_back(Tensor::empty({n, level.size(0)}, DType::f32));
    first.push_back(first.back() + level.size(0));
  }
  Tensor all = Tensor::empty({first.back(), 4}, DType::f32);
  for (size_t l = 0; l < levels; ++l)
    std::copy_n(anchors[l].data<float>(), anchors[l].numel(), all.data<float>() + 4 * first[l]);
  const Box* anchor = reinterpret_cast<const Box*>(all.data<float>());

  for (int64_t image = 0; image < n; ++image) {
    const Box* box = as_boxes("denseTargets", "boxes", boxes[image]);
    const Check check("denseTargets");
    check.dtype("labels", labels[image], DType::i32);
    check.shape("labels", labels[image], {boxes[image].size(0)}, "one a box");
    const int32_t* box_label = labels[image].data<int32_t>();
    static const std::vector<uint8_t> all_valid;
    const std::vector<int32_t> assigned =
        assign_max_iou(all, boxes[image], valid.empty() ? all_valid : valid[image], options);
    out.positives.push_back(
        std::count_if(assigned.begin(), assigned.end(), [](int32_t a) { return a >= 0; }));
    for (size_t l = 0; l < levels; ++l) {
      const int64_t count = first[l + 1] - first[l];
      int32_t* label = out.labels[l].data<int32_t>() + image * count;
      float* target = out.boxes[l].data<float>() + 4 * image * count;
      float* weight = out.weights[l].data<float>() + image * count;
      parallel_for(count, int64_t{16384}, [&](int64_t i) {
        const int32_t a = assigned[first[l] + i];
        label[i] = a >= 0 ? box_label[a] : a == kIgnored ? -1 : static_cast<int32_t>(classes);
        if (a < 0)
          std::fill_n(target + 4 * i, 4, 0.0f);
        else if (coder)
          reinterpret_cast<Delta*>(target)[i] = coder->encode(anchor[first[l] + i], box[a]);
        else
          reinterpret_cast<Box*>(target)[i] = box[a];
        weight[i] = a >= 0 ? 1.0f : 0.0f;
      });
    }
  }
  return out;
}

namespace {
// Inputs: anchors of one level, then boxes and labels of each image; { classes, posIou, negIou,
// minPosIou }. Outputs: labels, deltas, weights.
const bool registered =
    register_op("denseTargets", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.empty() || in.size() % 2 == 0)
        throw ShapeError(str("denseTargets: needs anchors, then boxes and labels per image, got ",
                             in.size(), " tensors"));
      MaxIouOptions options;
      options.pos_iou = static_cast<float>(o.number("posIou", options.pos_iou));
      options.neg_iou = static_cast<float>(o.number("negIou", options.neg_iou));
      options.min_pos_iou = static_cast<float>(o.number("minPosIou", options.min_pos_iou));
      options.validate();
      std::vector<Tensor> boxes, labels;
      for (size_t i = 1; i < in.size(); i += 2) {
        boxes.push_back(in[i]);
        labels.push_back(in[i + 1]);
      }
      const DeltaCoder coder;
      const DenseTargets targets = assign_dense_targets({in[0]}, boxes, labels, {},
                                                        o.integer("classes", 1), &coder, options);
      return std::vector<Tensor>{targets.labels[0], targets.boxes[0], targets.weights[0]};
    });
}  // namespace

}  // namespace mixpl
