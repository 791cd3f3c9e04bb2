// ATSS (Zhang et al. 2020) with mmdetection's choices: one square anchor a cell, boxes compared
// after decoding, centre-ness on the box tower.
#include "detect/atss_assigner.h"
#include "detect/box_targets.h"
#include "detect/normalisers.h"
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

constexpr float kBoxWeight = 2;
constexpr DeltaCoder kCoder{.stds = {0.1f, 0.1f, 0.2f, 0.2f}};

struct AtssLossOptions {
  AtssOptions assign;
  FocalLossOptions focal;

  /// { topK, focalAlpha, focalGamma }
  static AtssLossOptions read(const Options& o) {
    AtssLossOptions out;
    out.assign.top_k = o.integer("topK", out.assign.top_k);
    out.focal.alpha = static_cast<float>(o.number("focalAlpha", out.focal.alpha));
    out.focal.gamma = static_cast<float>(o.number("focalGamma", out.focal.gamma));
    out.assign.validate();
    return out;
  }
};

Losses atss_losses(const DenseOutputs& out, const AnchorTruth& truth, const AtssLossOptions& o) {
  const Tensor assigned = assign_atss(truth.anchors, truth.truth, truth.valid, o.assign);
  const BoxTargets wanted = box_targets(truth.anchors, truth.truth, assigned, truth.classes);
  show_scores(out.logits, wanted.labels, ClassTargets::binary);
  const std::vector<Tensor> central = anchor_centerness(truth.anchors, truth.truth, assigned);
  std::vector<Tensor> classification, regression, centerness;
  for (size_t l = 0; l < central.size(); ++l) {
    const int64_t boxes = central[l].numel();
    classification.push_back(
        sigmoid_focal_loss(out.logits[l], wanted.labels[l], truth.classes, o.focal));
    regression.push_back(iou_loss(boxes_from_deltas(out.boxes[l], truth.anchors.levels[l], kCoder),
                                  wanted.boxes[l].alias({boxes, 4}), central[l].alias({boxes})));
    centerness.push_back(sigmoid_bce(out.quality[l], central[l], wanted.positive[l]));
  }
  const Tensor positives = average_factor(wanted.positives);
  return {{"loss_cls", scaled_sum(classification, positives)},
          {"loss_bbox", scaled_sum(regression, sum_of(central, 1), kBoxWeight)},
          {"loss_centerness", scaled_sum(centerness, positives)}};
}

// Inputs and options: see read_anchor_head_case, and { topK, focalAlpha, focalGamma }. Outputs: the
// three losses.
const bool registered =
    register_op("atssLosses", [](const std::vector<Tensor>& in, const Options& o) {
      const AnchorHeadCase c = read_anchor_head_case("atssLosses", in, o, true);
      return tensors_of(atss_losses(c.out, c.truth, AtssLossOptions::read(o)));
    });

struct AtssDetectorOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  AtssLossOptions train;
  DensePostProcessOptions test;

  explicit AtssDetectorOptions(const Options& o) : classes(read_num_classes(o)) {
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
    train = AtssLossOptions::read(t);
    t.finish();

    test.nms_iou = 0.6f;
    test.score_rule = ScoreRule::product;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    e.finish();
  }
};

DenseHeadSpec head_of(const AtssDetectorOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "atss_cls";
  spec.boxes_name = "atss_reg";
  spec.quality_name = "atss_centerness";
  spec.class_channels = o.classes;
  spec.box_channels = 4;
  spec.scales = o.neck.num_outputs;
  return spec;
}

class Atss final : public DenseDetector<DenseOutputs> {
 public:
  Atss(const AtssDetectorOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options), options.head),
        anchors_(options.anchors) {}

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    return atss_losses(out, anchor_truth(images, targets, out.logits, anchors_, num_classes_),
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

  AtssDetectorOptions options_;
  DenseHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_atss(const Options& options, uint64_t seed) {
  return std::make_unique<Atss>(AtssDetectorOptions(options), seed);
}

}  // namespace mixpl
