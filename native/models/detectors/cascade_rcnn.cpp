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
    const Scope scope = Scope(parameters_, seed).child("roi_head").child("bbox_head");
    for (int s = 0; s < kStages; ++s) heads_[s] = BoxHead(scope.child(str(s)), options.heads[s]);
  }

  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) override {
    FirstStage first = first_stage(images, targets);
    Losses losses{{"loss_rpn_cls", first.loss_cls}, {"loss_rpn_bbox", first.loss_bbox}};
    std::vector<std::vector<Box>> proposals = std::move(first.proposals);
    for (int s = 0; s < kStages; ++s) {
      const RegionTargets regions =
          sample_regions(proposals, first.boxes, first.labels, options_.classes, options_.assign[s],
                         options_.sampler, random_of(s + 1));
      const BoxOutputs out =
          heads_[s](options_.features(first.levels, regions.boxes, regions.image));
      const auto [classification, regression] = heads_[s].loss(out, regions, first.boxes);
      const float weight = options_.loss_weights[s];
      losses.emplace_back(str("s", s, ".loss_cls"), scaled_sum({classification}, weight));
      losses.emplace_back(str("s", s, ".loss_bbox"), scaled_sum({regression}, weight));
      if (s + 1 < kStages) proposals = refined(s, out, regions, images);
    }
    return losses;
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const std::vector<Tensor> levels = neck_(backbone_(images.pixels));
    RegionList regions = join(rpn_.propose(rpn_(levels, images), images, false));
    Tensor mean;
    BoxOutputs out;
    for (int s = 0; s < kStages; ++s) {
      out = heads_[s](options_.features(levels, regions.boxes, regions.image));
      const Tensor logits = out.logits.to(DType::f32);
      if (s == 0) mean = logits.clone();
      for (int64_t i = 0; i < mean.numel(); ++i) {
        float& sum = mean.data<float>()[i];
        if (s > 0) sum += logits.data<float>()[i];
        if (s + 1 == kStages) sum /= kStages;
      }
      if (s + 1 < kStages)
        for (size_t i = 0; i < regions.boxes.size(); ++i)
          regions.boxes[i] = next_box(s, out, i, regions.boxes[i], regions.image[i], images);
    }
    return detect_regions(heads_[kStages - 1], out, mean, regions.boxes, regions.image, images,
                          options_.test);
  }

 private:
  // A region that a head made NaN of stays where it was.
  Box next_box(int stage, const BoxOutputs& out, size_t i, const Box& box, int32_t image,
               const ImageBatch& images) const {
    const Box next = clip_box(heads_[stage].decode(out, static_cast<int64_t>(i), 0, box),
                              images.sizes[image].height, images.sizes[image].width);
    return std::isnan(next.x1 + next.y1 + next.x2 + next.y2) ? box : next;
  }

  // What the next stage starts from: every region, refined, but for the ground truth itself.
  std::vector<std::vector<Box>> refined(int stage, const BoxOutputs& out,
                                        const RegionTargets& regions,
                                        const ImageBatch& images) const {
    std::vector<std::vector<Box>> proposals(images.sizes.size());
    for (int64_t i = 0; i < regions.size(); ++i)
      if (!regions.is_truth[i])
        proposals[regions.image[i]].push_back(
            next_box(stage, out, i, regions.boxes[i], regions.image[i], images));
    return proposals;
  }

  CascadeRcnnOptions options_;
  std::array<BoxHead, kStages> heads_;
};

}  // namespace

std::unique_ptr<Detector> create_cascade_rcnn(const Options& options, uint64_t seed) {
  return std::make_unique<CascadeRcnn>(CascadeRcnnOptions(options), seed);
}

}  // namespace mixpl
