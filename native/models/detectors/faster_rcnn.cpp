// Faster R-CNN (Ren et al. 2015) on a feature pyramid, with mmdetection's choices or torchvision's.
#include <cmath>

#include "models/detectors/detectors.h"
#include "models/detectors/two_stage.h"

namespace mixpl {
namespace {

struct FasterRcnnOptions : TwoStageOptions {
  BoxHeadOptions head;
  MaxIouOptions assign;
  SamplerOptions sampler{512, 0.25};

  explicit FasterRcnnOptions(const Options& o) : TwoStageOptions(o, {}) {
    const bool torchvision = numerics == Numerics::torchvision;
    assign.pos_iou = assign.neg_iou = 0.5f;
    assign.match_low_quality = false;
    head.classes = classes;
    head.in = neck.channels;
    head.size = features.align.size;
    head.coder.both_sides = !torchvision;
    const Options r = o.object("roi");
    head.convs = static_cast<int>(r.integer("convs", head.convs));
    head.conv_channels = r.integer("convChannels", head.conv_channels);
    head.norm = parse_norm(r.text("norm", "none"));
    head.fcs = static_cast<int>(r.integer("fcs", head.fcs));
    head.fc_channels = r.integer("fcChannels", head.fc_channels);
    const std::vector<double> weights = r.numbers("deltaWeights", {10, 10, 5, 5});
    if (weights.size() != 4)
      throw ConfigError(str("roi.deltaWeights must hold 4 numbers, got ", weights.size()));
    for (int i = 0; i < 4; ++i) {
      if (!(weights[i] > 0) || !std::isfinite(weights[i]))
        throw ConfigError(str("roi.deltaWeights must be numbers > 0, got ", weights[i]));
      head.coder.stds[i] = static_cast<float>(1 / weights[i]);
    }
    head.smooth_l1_beta = static_cast<float>(r.number("smoothL1Beta", head.smooth_l1_beta));
    assign.pos_iou = static_cast<float>(r.number("posIou", assign.pos_iou));
    assign.neg_iou = static_cast<float>(r.number("negIou", assign.neg_iou));
    sampler = SamplerOptions::read(r, sampler, "roi");
    r.finish();
    assign.validate();
    head.validate();
  }
};

class FasterRcnn final : public TwoStage {
 public:
  FasterRcnn(const FasterRcnnOptions& options, uint64_t seed)
      : TwoStage(options, seed),
        options_(options),
        head_(root(seed).child("roi_head").child("bbox_head"), options.head) {}

  Losses losses_of(const FirstStageMaps& maps, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const FirstStage first = first_stage(maps, images, targets);
    const RegionTargets regions = sample_regions(first.proposals, first.truth, options_.classes,
                                                 options_.assign, options_.sampler, random_of(1));
    const Tensor features = options_.features(maps.levels, regions.regions);
    const auto [classification, regression] = head_.loss(head_(features, regions.regions), regions);
    if (options_.numerics == Numerics::torchvision)
      return {{"loss_classifier", classification},
              {"loss_box_reg", regression},
              {"loss_objectness", first.loss_cls},
              {"loss_rpn_box_reg", first.loss_bbox}};
    return {{"loss_rpn_cls", first.loss_cls},
            {"loss_rpn_bbox", first.loss_bbox},
            {"loss_cls", classification},
            {"loss_bbox", regression}};
  }

  PendingDetections predict(const ImageBatch& images) override {
    const FirstStageMaps maps = outputs_of(images);
    const Regions regions = proposals(maps, images);
    const BoxOutputs out = head_(options_.features(maps.levels, regions), regions);
    return detect_regions(regions, {out.logits}, head_.decoder(out), sizes_of(images),
                          options_.test);
  }

 private:
  FasterRcnnOptions options_;
  BoxHead head_;
};

}  // namespace

std::unique_ptr<Detector> create_faster_rcnn(const Options& options, uint64_t seed) {
  return std::make_unique<FasterRcnn>(FasterRcnnOptions(options), seed);
}

}  // namespace mixpl
