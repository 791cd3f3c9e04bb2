#include "detect/box_targets.h"

#include <algorithm>

#include "core/check.h"
#include "detect/box_iou.h"
#include "detect/normalisers.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_assigned(const Anchors& anchors, const Truth& truth, const Tensor& assigned) {
  const Check check("boxTargets");
  check.dtype("assigned", assigned, DType::i32);
  check.shape("assigned", assigned, {truth.images(), anchors.pyramid.count()}, "one an anchor");
  check.same_device("assigned", assigned, anchors.all);
  check.same_device("boxes", truth.boxes, anchors.all);
}

}  // namespace

BoxTargets box_targets(const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                       int64_t classes, const std::vector<double>& units) {
  check_assigned(anchors, truth, assigned);
  const Pyramid& pyramid = anchors.pyramid;
  const int64_t images = truth.images();
  const Device device = assigned.device();
  BoxTargets out{per_level(pyramid, images, DType::i32, device),
                 per_level(pyramid, images, DType::f32, device, {4}),
                 per_level(pyramid, images, DType::f32, device), count_positives(assigned)};
  BoxTargetView view{pyramid,
                     assigned.data<int32_t>(),
                     TruthView(truth),
                     static_cast<int32_t>(classes),
                     {},
                     pointers<int32_t>(out.labels),
                     pointers<Box, float>(out.boxes),
                     pointers<float>(out.positive)};
  for (int l = 0; l < pyramid.levels; ++l)
    view.unit[l] = units.empty() ? 1.0f : static_cast<float>(units[l]);
  MIXPL_DISPATCH(device, fill_box_targets, images, view);
  return out;
}

std::vector<Tensor> anchor_centerness(const Anchors& anchors, const Truth& truth,
                                      const Tensor& assigned) {
  check_assigned(anchors, truth, assigned);
  const int64_t images = truth.images();
  const Device device = assigned.device();
  std::vector<Tensor> out = per_level(anchors.pyramid, images, DType::f32, device);
  const CenternessView view{anchors.pyramid,
                            reinterpret_cast<const Box*>(anchors.all.data<float>()),
                            assigned.data<int32_t>(), TruthView(truth), pointers<float>(out)};
  MIXPL_DISPATCH(device, fill_anchor_centerness, images, view);
  return out;
}

Tensor overlaps_of(const Tensor& boxes, const Tensor& target, const Tensor& positive) {
  const int64_t count = positive.numel();
  Tensor overlaps = Tensor::empty({count}, DType::f32, boxes.device());
  const OverlapView view{reinterpret_cast<const Box*>(boxes.data<float>()),
                         reinterpret_cast<const Box*>(target.data<float>()), positive.data<float>(),
                         overlaps.data<float>()};
  MIXPL_DISPATCH(boxes.device(), fill_overlaps, count, view);
  return overlaps;
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
      const Anchors anchors = Anchors::join("boxTargets", {in.begin() + 3, in.end()});
      const Truth truth = join_truth("boxTargets", {in[0]}, {in[1]}, in[0].device());
      check.dtype("assigned", in[2], DType::i32);
      if (in[2].numel() != anchors.pyramid.count())
        throw ShapeError(str("boxTargets: assigned must hold ", anchors.pyramid.count(),
                             " entries (one an anchor), got ", in[2].numel()));
      for (int32_t j : in[2].to_vector<int32_t>())
        check.in_range("assigned", j, kIgnored, double(truth.total() - 1));
      const Tensor assigned = in[2].alias({1, in[2].numel()});
      const BoxTargets targets = box_targets(anchors, truth, assigned, o.integer("classes", 1));
      const std::vector<Tensor> centerness = anchor_centerness(anchors, truth, assigned);
      std::vector<Tensor> out;
      for (size_t l = 0; l < centerness.size(); ++l)
        out.insert(out.end(),
                   {targets.labels[l], targets.boxes[l], targets.positive[l], centerness[l]});
      return out;
    });
}  // namespace

}  // namespace mixpl
