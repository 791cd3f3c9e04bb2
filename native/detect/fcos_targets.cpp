#include "detect/fcos_targets.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

// One level's rule, and how to ask it about a point and a box.
struct LevelRule {
  float low, high;  // of the largest distance
  float radius;     // pixels; < 0: the whole box
  bool torchvision;

  bool takes(float x, float y, const Box& b, const Sides& s) const {
    const float most = greater(greater(s.left, s.right), greater(s.top, s.bottom));
    if (torchvision ? !(most > low && most < high) : !(most >= low && most <= high)) return false;
    if (!(lesser(lesser(s.left, s.right), lesser(s.top, s.bottom)) > 0)) return false;
    if (radius < 0) return true;
    const float cx = (b.x1 + b.x2) * 0.5f, cy = (b.y1 + b.y2) * 0.5f;
    if (torchvision) return greater(fabsf(x - cx), fabsf(y - cy)) < radius;
    return x - (cx - radius) > 0 && (cx + radius) - x > 0 && y - (cy - radius) > 0 &&
           (cy + radius) - y > 0;
  }
};

}  // namespace

void FcosTargetOptions::validate(int levels) const {
  if (!(center_radius >= 0) || !std::isfinite(center_radius))
    throw ConfigError(str("train.centerRadius must be >= 0, got ", center_radius));
  if (static_cast<int>(regress_bounds.size()) != levels - 1)
    throw ConfigError(str("train.regressBounds must hold one number between two levels (",
                          levels - 1, "), got ", regress_bounds.size()));
  double before = 0;
  for (double bound : regress_bounds) {
    if (!(bound > before) || !std::isfinite(bound))
      throw ConfigError(str("train.regressBounds must be rising numbers > 0, got ", bound));
    before = bound;
  }
}

FcosTargets assign_fcos_targets(const std::vector<PointGrid>& grids,
                                const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                                int64_t classes, const FcosTargetOptions& o) {
  const Check check("fcosTargets");
  const int64_t images = static_cast<int64_t>(boxes.size());
  if (labels.size() != boxes.size())
    throw ShapeError(str("fcosTargets: labels must have one entry per image (", images, "), got ",
                         labels.size()));
  for (int64_t n = 0; n < images; ++n) {
    as_boxes("fcosTargets", "boxes", boxes[n]);
    check.dtype("labels", labels[n], DType::i32);
    check.shape("labels", labels[n], {boxes[n].size(0)}, "one a box");
  }

  FcosTargets out;
  for (size_t l = 0; l < grids.size(); ++l) {
    const PointGrid& grid = grids[l];
    const int64_t count = grid.count();
    Tensor label = Tensor::empty({images, count}, DType::i32);
    Tensor sides = Tensor::empty({images, count, 4}, DType::f32);
    Tensor centerness = Tensor::empty({images, count}, DType::f32);
    Tensor positive = Tensor::empty({images, count}, DType::f32);
    const LevelRule rule{
        l == 0 ? (o.torchvision ? 0.0f : -1.0f) : static_cast<float>(o.regress_bounds[l - 1]),
        l + 1 == grids.size() ? (o.torchvision ? INFINITY : 1e8f)
                              : static_cast<float>(o.regress_bounds[l]),
        o.center_radius > 0 ? static_cast<float>(o.center_radius * grid.unit) : -1.0f,
        o.torchvision};
    for (int64_t n = 0; n < images; ++n) {
      const Box* box = as_boxes("fcosTargets", "boxes", boxes[n]);
      const int64_t num_boxes = boxes[n].size(0);
      const int32_t* box_label = labels[n].data<int32_t>();
      std::vector<float> rank(num_boxes);  // the smallest goes first
      for (int64_t g = 0; g < num_boxes; ++g)
        rank[g] = o.torchvision ? -(1e8f - box_area(box[g])) : box_area(box[g]);
      int32_t* label_at = label.data<int32_t>() + n * count;
      Sides* sides_at = reinterpret_cast<Sides*>(sides.data<float>()) + n * count;
      float* centerness_at = centerness.data<float>() + n * count;
      float* positive_at = positive.data<float>() + n * count;
      const float unit = static_cast<float>(grid.unit);
      const int64_t grain = std::max<int64_t>(64, (1 << 15) / std::max<int64_t>(num_boxes, 1));
      parallel_for(count, grain, [&](int64_t i) {
        const float x = grid.x(i), y = grid.y(i);
        int64_t best = -1;
        for (int64_t g = 0; g < num_boxes; ++g)
          if ((best < 0 || rank[g] < rank[best]) &&
              rule.takes(x, y, box[g], encode_sides(x, y, box[g])))
            best = g;
        const bool found = best >= 0;
        const Sides s = found ? encode_sides(x, y, box[best]) : Sides{0, 0, 0, 0};
        label_at[i] = found ? box_label[best] : static_cast<int32_t>(classes);
        sides_at[i] = {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit};
        centerness_at[i] = found ? centerness_of(s) : 0.0f;
        positive_at[i] = found ? 1.0f : 0.0f;
      });
    }
    const float *c = centerness.data<float>(), *p = positive.data<float>();
    out.centerness_sum += parallel_sum(images * count, [c](int64_t i) { return double(c[i]); });
    out.positives +=
        std::llround(parallel_sum(images * count, [p](int64_t i) { return double(p[i]); }));
    out.labels.push_back(label);
    out.sides.push_back(sides);
    out.centerness.push_back(centerness);
    out.positive.push_back(positive);
  }
  return out;
}

namespace {
// Inputs: boxes and labels of each image; { classes, heights, widths, strides, offset,
// centerRadius, regressBounds, torchvision }. Outputs: labels, sides, centerness of every level in
// turn.
const bool registered = register_op("fcosTargets", [](const std::vector<Tensor>& in,
                                                      const Options& o) {
  if (in.size() % 2 != 0)
    throw ShapeError(
        str("fcosTargets: needs boxes and labels per image, got ", in.size(), " tensors"));
  const std::vector<double> heights = o.numbers("heights", {}), widths = o.numbers("widths", {}),
                            strides = o.numbers("strides", {});
  if (heights.size() != strides.size() || widths.size() != strides.size() || strides.empty())
    throw ShapeError(str("fcosTargets: heights and widths must hold one number per stride (",
                         strides.size(), ", at least 1), got ", heights.size(), " and ",
                         widths.size()));
  FcosTargetOptions options;
  options.center_radius = o.number("centerRadius", options.center_radius);
  options.regress_bounds = o.numbers("regressBounds", options.regress_bounds);
  options.torchvision = o.boolean("torchvision", false);
  options.validate(static_cast<int>(strides.size()));
  const Check check("fcosTargets");
  std::vector<PointGrid> grids;
  for (size_t l = 0; l < strides.size(); ++l) {
    check.in_range("heights", heights[l], 0, 1 << 14);
    check.in_range("widths", widths[l], 0, 1 << 14);
    grids.push_back({static_cast<int64_t>(heights[l]), static_cast<int64_t>(widths[l]), strides[l],
                     strides[l], o.number("offset", 0.5), strides[l]});
  }
  std::vector<Tensor> boxes, labels;
  for (size_t i = 0; i < in.size(); i += 2) {
    boxes.push_back(in[i]);
    labels.push_back(in[i + 1]);
  }
  const FcosTargets t = assign_fcos_targets(grids, boxes, labels, o.integer("classes", 1), options);
  std::vector<Tensor> out;
  for (size_t l = 0; l < grids.size(); ++l)
    out.insert(out.end(), {t.labels[l], t.sides[l], t.centerness[l]});
  return out;
});
}  // namespace

}  // namespace mixpl
