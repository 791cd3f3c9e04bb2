// Cascade R-CNN (Cai and Vasconcelos 2018): box heads in a row, each trained on what the one before
// it refined, with higher overlaps. mmdetection's choices.
#include <array>
#include <cmath>

#include "models/detectors/detectors.h"
#include "models/detectors/two_stage.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

constexpr int kStages = 3;
constexpr std::array<float, 4> kStds[kStages] = {
    {0.1f, 0.1f, 0.2f, 0.2f}, {0.05f, 0.05f, 0.1f, 0.1f}, {0.033f, 0.033f, 0.067f, 0.067f}};

RpnOptions rpn_defaults() {
  RpnOptions rpn;
  rpn.allowed_border = 0;
  rpn.smooth_l1_beta = 1.0f / 9;
  rpn.train.max_per_image = 2000;
  return rpn;
}

struct CascadeRcnnOptions : TwoStageOptions {
  std::array<BoxHeadOptions, kStages> heads;
  std::array<MaxIouOptions, kStages> assign;
  std::array<float, kStages> loss_weights{1, 0.5f, 0.25f};
  SamplerOptions sampler{512, 0.25};

  explicit CascadeRcnnOptions(const Options& o) : TwoStageOptions(o, rpn_defaults()) {
    if (numerics == Numerics::torchvision)
      throw ConfigError("model.numerics must be 'mmdetection' for cascade-rcnn, got 'torchvision'");
    const Options r = o.object("roi");
    const std::vector<double> ious = three(r, "ious", {0.5, 0.6, 0.7});
    const std::vector<double> weights = three(r, "lossWeights", {1, 0.5, 0.25});
    const int64_t fc_channels = r.integer("fcChannels", heads[0].fc_channels);
    const float beta = static_cast<float>(r.number("smoothL1Beta", 1));
    sampler = SamplerOptions::read(r, sampler, "roi");
    r.finish();
    for (int s = 0; s < kStages; ++s) {
      BoxHeadOptions& head = heads[s];
      head.classes = classes;
      head.in = neck.channels;
      head.size = features.align.size;
      head.fc_channels = fc_channels;
      head.class_agnostic = true;
      head.smooth_l1_beta = beta;
      head.coder.stds = kStds[s];
      head.validate();
      assign[s].pos_iou = assign[s].neg_iou = assign[s].min_pos_iou = static_cast<float>(ious[s]);
      assign[s].match_low_quality = false;
      assign[s].validate();
      if (!(weights[s] >= 0) || !std::isfinite(weights[s]))
        throw ConfigError(str("roi.lossWeights must be numbers >= 0, got ", weights[s]));
      loss_weights[s] = static_cast<float>(weights[s]);
    }
  }

 private:
  static std::vector<double> three(const Options& o, const char* key,
                                   const std::vector<double>& fallback) {
    std::vector<double> values = o.numbers(key, fallback);
    if (values.size() != kStages)
      throw ConfigError(str("roi.", key, " must hold ", kStages, " numbers, got ", values.size()));
    return values;
  }
};

class CascadeRcnn final : public TwoStage {
 public:
  CascadeRcnn(const CascadeRcnnOptions& options, uint64_t seed)
      : TwoStage(options, seed), options_(options) {
    const Scope scope = root(seed).child("roi_head").child("bbox_head");
    for (int s = 0; s < kStages; ++s) heads_[s] = BoxHead(scope.child(str(s)), options.heads[s]);
  }

  Losses losses_of(const FirstStageMaps& maps, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const FirstStage first = first_stage(maps, images, targets);
    Losses losses{{"loss_rpn_cls", first.loss_cls}, {"loss_rpn_bbox", first.loss_bbox}};
    const Tensor sizes = sizes_of(images);
    Regions proposals = first.proposals;
    for (int s = 0; s < kStages; ++s) {
      const RegionTargets wanted =
          sample_regions(proposals, first.truth, options_.classes, options_.assign[s],
                         options_.sampler, random_of(s + 1));
      const Regions& regions = wanted.regions;
      const BoxOutputs out = heads_[s](options_.features(maps.levels, regions), regions);
      const auto [classification, regression] = heads_[s].loss(out, wanted);
      const float weight = options_.loss_weights[s];
      losses.emplace_back(str("s", s, ".loss_cls"), scaled_sum({classification}, weight));
      losses.emplace_back(str("s", s, ".loss_bbox"), scaled_sum({regression}, weight));
      // The next stage starts from every region, refined, but for the ground truth itself.
      if (s + 1 < kStages)
        proposals = refine_regions(regions, heads_[s].decoder(out), sizes, wanted.is_truth);
    }
    return losses;
  }

  PendingDetections predict(const ImageBatch& images) override {
    const FirstStageMaps maps = outputs_of(images);
    const Tensor sizes = sizes_of(images);
    Regions regions = proposals(maps, images);
    std::vector<Tensor> logits;
    for (int s = 0;; ++s) {
      const BoxOutputs out = heads_[s](options_.features(maps.levels, regions), regions);
      logits.push_back(out.logits);
      if (s + 1 == kStages)
        return detect_regions(regions, logits, heads_[s].decoder(out), sizes, options_.test);
      regions = refine_regions(regions, heads_[s].decoder(out), sizes);
    }
  }

 private:
  CascadeRcnnOptions options_;
  std::array<BoxHead, kStages> heads_;
};

}  // namespace

std::unique_ptr<Detector> create_cascade_rcnn(const Options& options, uint64_t seed) {
  return std::make_unique<CascadeRcnn>(CascadeRcnnOptions(options), seed);
}

}  // namespace mixpl
