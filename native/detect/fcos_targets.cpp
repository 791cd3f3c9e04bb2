#include "detect/fcos_targets.h"

#include <cmath>

#include "core/check.h"
#include "core/context.h"
#include "ops/registry.h"

namespace mixpl {

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

FcosTargets assign_fcos_targets(const std::vector<PointGrid>& grids, const Truth& truth,
                                int64_t classes, const FcosTargetOptions& o) {
  std::vector<int64_t> sizes;
  for (const PointGrid& grid : grids) sizes.push_back(grid.count());
  const Pyramid pyramid(sizes);
  const int64_t images = truth.images();
  const Device device = truth.device();
  FcosTargets out{per_level(pyramid, images, DType::i32, device),
                  per_level(pyramid, images, DType::f32, device, {4}),
                  per_level(pyramid, images, DType::f32, device),
                  per_level(pyramid, images, DType::f32, device)};
  FcosView view{pyramid,
                {},
                TruthView(truth),
                static_cast<int32_t>(classes),
                o.torchvision,
                pointers<int32_t>(out.labels),
                pointers<Sides, float>(out.sides),
                pointers<float>(out.centerness),
                pointers<float>(out.positive)};
  for (size_t l = 0; l < grids.size(); ++l)
    view.rules[l] = {
        grids[l],
        l == 0 ? (o.torchvision ? 0.0f : -1.0f) : static_cast<float>(o.regress_bounds[l - 1]),
        l + 1 == grids.size() ? (o.torchvision ? INFINITY : 1e8f)
                              : static_cast<float>(o.regress_bounds[l]),
        o.center_radius > 0 ? static_cast<float>(o.center_radius * grids[l].unit) : -1.0f};
  MIXPL_DISPATCH(device, fill_fcos_targets, images, view);
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
  const Device device = in.empty() ? Context::current().device : in[0].device();
  const FcosTargets t = assign_fcos_targets(grids, join_truth("fcosTargets", boxes, labels, device),
                                            o.integer("classes", 1), options);
  std::vector<Tensor> out;
  for (size_t l = 0; l < grids.size(); ++l)
    out.insert(out.end(), {t.labels[l], t.sides[l], t.centerness[l]});
  return out;
});
}  // namespace

}  // namespace mixpl
