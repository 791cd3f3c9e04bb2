#include "detect/centernet_targets.h"

#include <cmath>

#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

void CenterNetTargetOptions::validate(int levels) const {
  if (static_cast<int>(regress_from.size()) != levels)
    throw ConfigError(str("train.regressFrom must hold one number per level (", levels, "), got ",
                          regress_from.size()));
  if (static_cast<int>(regress_to.size()) != levels - 1)
    throw ConfigError(str("train.regressTo must hold one number per level but the last (",
                          levels - 1, "), got ", regress_to.size()));
  for (double v : regress_from)
    if (!(v >= 0) || !std::isfinite(v))
      throw ConfigError(str("train.regressFrom must be numbers >= 0, got ", v));
  for (double v : regress_to)
    if (!(v >= 0) || !std::isfinite(v))
      throw ConfigError(str("train.regressTo must be numbers >= 0, got ", v));
  if (!(min_overlap >= 0 && min_overlap <= 1))
    throw ConfigError(str("train.heatMinOverlap must be in [0, 1], got ", min_overlap));
  if (!(min_radius > 0) || !std::isfinite(min_radius))
    throw ConfigError(str("train.heatMinRadius must be > 0, got ", min_radius));
  if (!(more_positives_loss >= 0 && more_positives_loss <= 2))
    throw ConfigError(str("train.morePositivesLoss must be in [0, 2], got ", more_positives_loss));
  if (more_positives < 1)
    throw ConfigError(str("train.morePositives must be >= 1, got ", more_positives));
}

CenterNetTargets assign_centernet_targets(const std::vector<PointGrid>& grids,
                                          const std::vector<Tensor>& predicted, const Truth& truth,
                                          int64_t classes, const CenterNetTargetOptions& o) {
  const Check check("centerNetTargets");
  const int64_t images = truth.images();
  if (predicted.size() != grids.size())
    throw ShapeError(str("centerNetTargets: predicted must have one tensor per level (",
                         grids.size(), "), got ", predicted.size()));
  o.validate(static_cast<int>(grids.size()));
  check.at_least("classes", static_cast<double>(classes), 1);
  std::vector<int64_t> sizes;
  for (size_t l = 0; l < grids.size(); ++l) {
    check.floating("predicted", predicted[l]);
    check.same_device("predicted", predicted[l], truth.boxes);
    if (predicted[l].numel() != images * grids[l].count() * 4)
      throw ShapeError(str("centerNetTargets: predicted of level ", l, " must hold ", images, " x ",
                           grids[l].count(), " x 4 numbers, got ", predicted[l].shape()));
    sizes.push_back(grids[l].count());
  }

  const Device device = truth.device();
  const Pyramid pyramid(sizes);
  CenterNetTargets out;
  for (int64_t size : sizes) {
    out.heat.push_back(Tensor::zeros({images, size, classes}, DType::f32, device));
    out.sides.push_back(Tensor::zeros({images, size, 4}, DType::f32, device));
    out.positive.push_back(Tensor::zeros({images, size}, DType::f32, device));
  }
  const double delta = (1 - o.min_overlap) / (1 + o.min_overlap);
  CenterNetView view{pyramid,
                     {},
                     TruthView(truth),
                     images,
                     classes,
                     static_cast<float>(2 * delta * delta),
                     static_cast<float>(o.min_radius * o.min_radius),
                     static_cast<float>(o.more_positives_loss),
                     o.more_positives,
                     pointers<float>(out.heat),
                     pointers<float>(out.positive),
                     pointers<Sides, float>(out.sides)};
  for (size_t l = 0; l < grids.size(); ++l)
    view.level[l] = {grids[l], static_cast<float>(o.regress_from[l]),
                     l + 1 < grids.size() ? static_cast<float>(o.regress_to[l]) : 1e9f};
  MIXPL_DISPATCH(device, fill_centernet_targets, view);
  out.num_class_positives = Tensor::empty({1}, DType::f32, device);
  MIXPL_DISPATCH(device, find_class_positives, view, predicted, truth.total(), out.class_positives,
                 out.num_class_positives);
  return out;
}

namespace {

// The pairs that are some, for who reads them.
Tensor without_gaps(const Tensor& pairs) {
  std::vector<int32_t> kept;
  const std::vector<int32_t> all = pairs.to_vector<int32_t>();
  for (size_t i = 0; i < all.size(); i += 2)
    if (all[i] >= 0) kept.insert(kept.end(), {all[i], all[i + 1]});
  return Tensor::from(kept, {static_cast<int64_t>(kept.size()) / 2, 2}).to(pairs.device());
}

// Inputs: predicted sides of every level, then boxes and labels of each image; { classes, strides,
// regressFrom, regressTo, heatMinOverlap, heatMinRadius, morePositivesLoss, morePositives }.
// Outputs: heat, sides, positive, class positives of every level in turn.
const bool registered = register_op("centerNetTargets", [](const std::vector<Tensor>& in,
                                                           const Options& o) {
  const std::vector<double> strides = o.numbers("strides", {8, 16, 32, 64, 128});
  const size_t levels = strides.size();
  if (in.size() < levels || (in.size() - levels) % 2 != 0)
    throw ShapeError(str("centerNetTargets: needs sides per level (", levels,
                         "), then boxes and labels per image, got ", in.size(), " tensors"));
  CenterNetTargetOptions options;
  options.regress_from = o.numbers("regressFrom", options.regress_from);
  options.regress_to = o.numbers("regressTo", options.regress_to);
  options.min_overlap = o.number("heatMinOverlap", options.min_overlap);
  options.min_radius = o.number("heatMinRadius", options.min_radius);
  options.more_positives_loss = o.number("morePositivesLoss", options.more_positives_loss);
  options.more_positives = o.integer("morePositives", options.more_positives);
  std::vector<PointGrid> grids;
  const std::vector<Tensor> predicted(in.begin(), in.begin() + levels);
  for (size_t l = 0; l < levels; ++l) {
    Check("centerNetTargets").rank("predicted", predicted[l], 4, "N, H, W, 4");
    grids.push_back(
        {predicted[l].size(1), predicted[l].size(2), strides[l], strides[l], 0.5, strides[l]});
  }
  std::vector<Tensor> boxes, labels;
  for (size_t i = levels; i < in.size(); i += 2) {
    boxes.push_back(in[i]);
    labels.push_back(in[i + 1]);
  }
  const int64_t classes = o.integer("classes", 1);
  for (const Tensor& list : labels) {
    Check("centerNetTargets").dtype("labels", list, DType::i32);
    for (int32_t label : list.to_vector<int32_t>())
      if (label < 0 || label >= classes)
        throw RangeError(
            str("centerNetTargets: labels must be in [0, ", classes - 1, "], got ", label));
  }
  const Device device = in[0].device();
  const CenterNetTargets t = assign_centernet_targets(
      grids, predicted, join_truth("centerNetTargets", boxes, labels, device), classes, options);
  std::vector<Tensor> out;
  for (size_t l = 0; l < levels; ++l)
    out.insert(out.end(),
               {t.heat[l], t.sides[l], t.positive[l], without_gaps(t.class_positives[l])});
  return out;
});
}  // namespace

}  // namespace mixpl
