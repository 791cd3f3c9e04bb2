#include "models/detectors/two_stage.h"

#include <algorithm>
#include <tuple>

#include "core/context.h"

namespace mixpl {
namespace {

FpnOptions neck_defaults() {
  FpnOptions neck;
  neck.first_level = 2;
  neck.extra = FpnOptions::Extra::none;  // P6 is P5 subsampled
  return neck;
}

}  // namespace

TwoStageOptions::TwoStageOptions(const Options& o, const RpnOptions& rpn_defaults)
    : numerics(read_numerics(o)), classes(read_num_classes(o)) {
  const bool torchvision = numerics == Numerics::torchvision;
  backbone = BackboneOptions::read(o.object("backbone"));
  backbone.set_freeze_statistics(!torchvision);
  neck = FpnOptions::read(o.object("neck"), neck_defaults());
  neck.norm_of_extra = !torchvision;
  rpn = RpnOptions::read(o.object("rpn"), numerics, rpn_defaults);
  if (static_cast<int>(rpn.anchors.strides.size()) != neck.num_outputs)
    throw ConfigError(str("rpn.strides must hold one stride per output of the neck (",
                          neck.num_outputs, "), got ", rpn.anchors.strides.size()));
  features.torchvision = torchvision;
  features.align = {7, torchvision ? 2 : 0, !torchvision};
  // Regions come from the levels of the backbone: P2 … P5 of P2 … P6.
  features.strides.assign(
      rpn.anchors.strides.begin(),
      rpn.anchors.strides.begin() + std::min(neck.num_outputs, 6 - neck.first_level));
  const Options t = o.object("test");
  test.min_size = torchvision ? 1e-2f : -1.0f;
  test = RegionDetectionOptions::read(t, test);
  t.finish();
}

TwoStage::TwoStage(const TwoStageOptions& options, uint64_t seed)
    : DenseDetector(seed, options.classes, options.backbone, options.neck),
      rpn_(root(seed).child("rpn_head"), options.neck.channels, options.rpn) {}

std::vector<FirstStageMaps> TwoStage::head_outputs(std::vector<FeatureMaps> pyramids) const {
  const std::vector<RpnMaps> rpn = rpn_(pyramids);
  std::vector<FirstStageMaps> out;
  for (size_t b = 0; b < pyramids.size(); ++b) out.push_back({std::move(pyramids[b]), rpn[b]});
  return out;
}

TwoStage::FirstStage TwoStage::first_stage(const FirstStageMaps& maps, const ImageBatch& images,
                                           const std::vector<Target>& targets) {
  FirstStage out;
  out.truth = truth_of(images, targets);
  const RpnOutputs rpn = rpn_.with_anchors(maps.rpn, images);
  std::tie(out.loss_cls, out.loss_bbox) = rpn_.loss(rpn, images, out.truth, random_of(0));
  out.proposals = rpn_.propose(rpn, images, true);
  return out;
}

Regions TwoStage::proposals(const FirstStageMaps& maps, const ImageBatch& images) {
  return rpn_.propose(rpn_.with_anchors(maps.rpn, images), images, false);
}

Philox TwoStage::random_of(int stage) {
  Philox random = Context::current().random;
  random.stream += static_cast<uint64_t>(stage) << 16;
  return random;
}

}  // namespace mixpl
