#include "detect/sampled_targets.h"

#include "core/launch.h"
#include "detect/sampled_targets_math.h"

namespace mixpl {

AnchorTargets sample_anchor_targets(const Anchors& anchors, const Truth& truth, const Tensor& valid,
                                    const DeltaCoder& coder, const MaxIouOptions& assign,
                                    const SamplerOptions& sampler, int64_t least,
                                    const Philox& random) {
  const int64_t images = truth.images();
  const Device device = truth.device();
  const Pyramid& pyramid = anchors.pyramid;
  const Tensor assigned = assign_max_iou(anchors.all, truth, valid, assign);
  Tensor drawn = Tensor::empty({images, pyramid.count()}, DType::u8, device);
  AnchorTargets out;
  out.num_sampled = Tensor::empty({1}, DType::f32, device);
  MIXPL_DISPATCH(device, mark_sampled, assigned, sampler, least, random, drawn, out.num_sampled);
  for (auto* list : {&out.objectness, &out.sampled, &out.positive})
    *list = per_level(pyramid, images, DType::f32, device);
  out.deltas = per_level(pyramid, images, DType::f32, device, {4});
  const AnchorTargetView view{pyramid,
                              boxes_in(anchors.all),
                              assigned.data<int32_t>(),
                              drawn.data<uint8_t>(),
                              TruthView(truth),
                              coder,
                              pointers<float>(out.objectness),
                              pointers<float>(out.sampled),
                              pointers<float>(out.positive),
                              pointers<Delta, float>(out.deltas)};
  MIXPL_DISPATCH(device, fill_anchor_targets, images, view);
  return out;
}

Tensor anchors_inside(const Anchors& anchors, const Tensor& valid, const Tensor& sizes,
                      float border) {
  const int64_t images = sizes.size(0), count = anchors.pyramid.count();
  Tensor inside = Tensor::empty({images, count}, DType::u8, sizes.device());
  const InsideView view{
      boxes_in(anchors.all), count,  valid.defined() ? valid.data<uint8_t>() : nullptr,
      sizes_in(sizes),       border, inside.data<uint8_t>()};
  MIXPL_DISPATCH(sizes.device(), mark_inside, images * count, view);
  return inside;
}

RegionTargets sample_regions(const Regions& proposals, const Truth& truth, int64_t classes,
                             const MaxIouOptions& assign, const SamplerOptions& sampler,
                             const Philox& random) {
  const RegionCandidates candidates =
      MIXPL_DISPATCH(truth.device(), join_candidates, proposals, truth);
  Tensor assigned = assign_max_iou(candidates.boxes, truth, candidates.valid, assign);
  return MIXPL_DISPATCH(truth.device(), draw_regions, candidates, assigned, truth, classes, sampler,
                        random);
}

RegionDeltas region_deltas(const RegionTargets& targets, int64_t classes, int64_t each,
                           const DeltaCoder& coder) {
  const int64_t rows = targets.regions.size();
  const Device device = targets.regions.device();
  RegionDeltas out{Tensor::empty({rows, each, 4}, DType::f32, device),
                   Tensor::empty({rows, each}, DType::f32, device)};
  const RegionDeltaView view{boxes_in(targets.regions.boxes),
                             boxes_in(targets.wanted),
                             targets.labels.data<int32_t>(),
                             classes,
                             each,
                             coder,
                             reinterpret_cast<Delta*>(out.deltas.data<float>()),
                             out.weights.data<float>()};
  MIXPL_DISPATCH(device, fill_region_deltas, rows * each, view);
  return out;
}

RegionTargets region_rows(int64_t rows, int64_t images, Device device) {
  RegionTargets out;
  out.regions = {Tensor::empty({rows, 4}, DType::f32, device),
                 Tensor::empty({rows}, DType::i32, device),
                 Tensor::empty({images}, DType::i32, device)};
  out.labels = Tensor::empty({rows}, DType::i32, device);
  out.wanted = Tensor::empty({rows, 4}, DType::f32, device);
  out.is_truth = Tensor::empty({rows}, DType::u8, device);
  out.num_regions = Tensor::empty({1}, DType::f32, device);
  return out;
}

RegionRowView rows_of(const RegionTargets& t, const RegionCandidates& candidates,
                      const Tensor& assigned, const Truth& truth, int64_t classes) {
  return {boxes_in(candidates.boxes),
          assigned.data<int32_t>(),
          assigned.size(1),
          TruthView(truth),
          static_cast<int32_t>(classes),
          mutable_boxes_in(t.regions.boxes),
          mutable_boxes_in(t.wanted),
          t.regions.image.data<int32_t>(),
          t.labels.data<int32_t>(),
          t.is_truth.data<uint8_t>()};
}

}  // namespace mixpl
