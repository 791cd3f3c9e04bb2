// PAA (Kim and Lee 2020) with mmdetection's choices: ATSS's head with an IoU in place of the
// centre-ness, anchors assigned by how well the head does on them.
#include <algorithm>

#include "detect/box_targets.h"
#include "detect/max_iou_assigner.h"
#include "detect/normalisers.h"
#include "detect/paa_assigner.h"
#include "models/detectors/detectors.h"
#include "models/heads/anchor_truth.h"
#include "models/heads/dense_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"

namespace mixpl {
namespace {

constexpr float kBoxWeight = 1.3f, kQualityWeight = 0.5f;
constexpr DeltaCoder kCoder{.stds = {0.1f, 0.1f, 0.2f, 0.2f}};

struct PaaLossOptions {
  MaxIouOptions assign{.pos_iou = 0.1f, .neg_iou = 0.1f};  // of the first step
  int64_t top_k = 9;  // candidates a level and box, of the second
  FocalLossOptions focal;

  /// { posIou, negIou, minPosIou, topK, focalAlpha, focalGamma }. @throws ConfigError
  static PaaLossOptions read(const Options& o) {
    PaaLossOptions out;
    const auto number = [&](const char* name, float& value) {
      value = static_cast<float>(o.number(name, value));
    };
    number("posIou", out.assign.pos_iou);
    number("negIou", out.assign.neg_iou);
    number("minPosIou", out.assign.min_pos_iou);
    number("focalAlpha", out.focal.alpha);
    number("focalGamma", out.focal.gamma);
    out.top_k = o.integer("topK", out.top_k);
    out.assign.validate();
    if (out.top_k < 1 || out.top_k > 1 << 16)
      throw ConfigError(str("train.topK must be in [1, 65536], got ", out.top_k));
    return out;
  }
};

BoxTargets assign(const DenseOutputs& out, const AnchorTruth& truth, const PaaLossOptions& o) {
  const Anchors& anchors = truth.anchors;
  const Tensor first = assign_max_iou(anchors.all, truth.truth, truth.valid, o.assign);
  const Tensor costs = paa_costs(out.logits, out.boxes, anchors, truth.truth, first, truth.classes,
                                 {kCoder, o.focal, kBoxWeight});
  const Tensor assigned = select_paa(anchors.pyramid, truth.truth, first, costs, o.top_k);
  return box_targets(anchors, truth.truth, assigned, truth.classes);
}

Losses paa_losses(const DenseOutputs& out, const AnchorTruth& truth, const PaaLossOptions& o) {
  const BoxTargets wanted = assign(out, truth, o);
  show_scores(out.logits, wanted.labels, ClassTargets::binary);
  std::vector<Tensor> classification, regression, quality, overlaps;
  for (size_t l = 0; l < out.logits.size(); ++l) {
    const Tensor boxes = boxes_from_deltas(out.boxes[l], truth.anchors.levels[l], kCoder);
    overlaps.push_back(overlaps_of(boxes, wanted.boxes[l], wanted.positive[l]));
    classification.push_back(
        sigmoid_focal_loss(out.logits[l], wanted.labels[l], truth.classes, o.focal));
    regression.push_back(iou_loss(boxes, wanted.boxes[l].alias({boxes.size(0), 4}), overlaps[l]));
    quality.push_back(sigmoid_bce(out.quality[l], overlaps[l], wanted.positive[l]));
  }
  const double images = static_cast<double>(truth.truth.images());
  return {{"loss_cls", scaled_sum(classification, sum_of(wanted.positive, std::max(images, 1.0)))},
          {"loss_bbox", scaled_sum(regression, sum_of(overlaps, 1e-6), kBoxWeight)},
          {"loss_iou", scaled_sum(quality, sum_of(wanted.positive, 1), kQualityWeight)}};
}

// Inputs and options: see read_anchor_head_case and PaaLossOptions::read. Outputs: the three
// losses.
const bool registered =
    register_op("paaLosses", [](const std::vector<Tensor>& in, const Options& o) {
      const AnchorHeadCase c = read_anchor_head_case("paaLosses", in, o, true);
      return tensors_of(paa_losses(c.out, c.truth, PaaLossOptions::read(o)));
    });

struct PaaOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  PaaLossOptions train;
  DensePostProcessOptions test;

  explicit PaaOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck = FpnOptions::read(o.object("neck"), neck);
    head.norm = NormKind::gn;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    h.finish();
    anchors = read_square_anchors(o, neck.num_outputs);

    const Options t = o.object("train");
    train = PaaLossOptions::read(t);
    t.finish();

    test.nms_iou = 0.6f;
    test.score_rule = ScoreRule::geometric_mean;
    test.per_anchor = true;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    test.vote = e.boolean("scoreVoting", true);
    e.finish();
  }
};

DenseHeadSpec head_of(const PaaOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "atss_cls";
  spec.boxes_name = "atss_reg";
  spec.quality_name = "atss_centerness";  // an IoU, under the name of the head it comes from
  spec.class_channels = o.classes;
  spec.box_channels = 4;
  spec.scales = o.neck.num_outputs;
  return spec;
}

class Paa final : public DenseDetector<DenseOutputs> {
 public:
  Paa(const PaaOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options), options.head),
        anchors_(options.anchors) {}

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    return paa_losses(out, anchor_truth(images, targets, out.logits, anchors_, num_classes_),
                      options_.train);
  }

  PendingDetections predict(const ImageBatch& images) override {
    const DenseOutputs out = outputs_of(images);
    const std::vector<Tensor> anchors = anchors_.levels(out.logits).levels;
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back({out.logits[l], out.quality[l],
                        delta_decoder(out.boxes[l], anchors[l], kCoder, images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  std::vector<DenseOutputs> head_outputs(std::vector<FeatureMaps> pyramids) const override {
    return head_(pyramids);
  }

  PaaOptions options_;
  DenseHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_paa(const Options& options, uint64_t seed) {
  return std::make_unique<Paa>(PaaOptions(options), seed);
}

}  // namespace mixpl
