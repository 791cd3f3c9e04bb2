// RetinaNet (Lin et al. 2017) with mmdetection's choices, or torchvision's; see MaxIouOptions,
// sigmoid_focal_loss, smooth_l1_loss.
#include <cmath>

#include "detect/anchors.h"
#include "detect/dense_targets.h"
#include "detect/normalisers.h"
#include "models/detectors/detectors.h"
#include "models/heads/dense_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

struct RetinaNetOptions {
  Numerics numerics;
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  MaxIouOptions assign;
  DeltaCoder coder;
  FocalLossOptions focal;
  bool giou = false;         // box loss of decoded boxes instead of smooth L1 of encoded ones
  float smooth_l1_beta = 0;  // plain L1
  DensePostProcessOptions test;

  explicit RetinaNetOptions(const Options& o)
      : numerics(read_numerics(o)), classes(read_num_classes(o)) {
    backbone = BackboneOptions::read(o.object("backbone"));
    neck = FpnOptions::read(o.object("neck"), FpnOptions{});
    const Options h = o.object("head");
    head = TowerOptions::read(h, {});
    h.finish();
    read_anchors(o.object("anchors"));

    const Options t = o.object("train");
    assign.pos_iou = static_cast<float>(t.number("posIou", assign.pos_iou));
    assign.neg_iou = static_cast<float>(t.number("negIou", assign.neg_iou));
    assign.min_pos_iou = static_cast<float>(t.number("minPosIou", assign.min_pos_iou));
    focal.alpha = static_cast<float>(t.number("focalAlpha", focal.alpha));
    focal.gamma = static_cast<float>(t.number("focalGamma", focal.gamma));
    smooth_l1_beta = static_cast<float>(t.number("smoothL1Beta", smooth_l1_beta));
    const std::string box_loss = t.text("boxLoss", "l1");
    t.finish();
    if (box_loss != "l1" && box_loss != "giou")
      throw ConfigError(str("train.boxLoss must be 'l1' or 'giou', got '", box_loss, "'"));
    giou = box_loss == "giou";
    assign.validate();

    const Options p = o.object("test");
    test = DensePostProcessOptions::read(p, test);
    p.finish();
    if (torchvision()) {
      assign.low_quality = LowQuality::restore_best;
      coder.both_sides = false;
      test.min_size = -1;
      backbone.set_freeze_statistics(false);
      neck.norm_of_extra = false;
    }
  }

  bool torchvision() const { return numerics == Numerics::torchvision; }

 private:
  void read_anchors(const Options& a) {
    anchors.strides = a.numbers("strides", anchors.strides);
    anchors.ratios = a.numbers("ratios", anchors.ratios);
    const double octave = a.number("octaveBaseScale", 4);
    const int64_t per_octave = a.integer("scalesPerOctave", 3);
    a.finish();
    if (per_octave < 1 || per_octave > 16)
      throw ConfigError(str("anchors.scalesPerOctave must be in [1, 16], got ", per_octave));
    anchors.scales.clear();
    for (int64_t i = 0; i < per_octave; ++i)
      anchors.scales.push_back(octave * std::pow(2.0, double(i) / double(per_octave)));
    if (torchvision()) {  // whole sides, corners rounded
      for (double stride : anchors.strides) {
        anchors.sizes.emplace_back();
        for (double scale : anchors.scales)
          anchors.sizes.back().push_back(std::max(1.0, std::floor(stride * scale)));
      }
      anchors.round = true;
    }
    anchors.validate();
    if (static_cast<int>(anchors.strides.size()) != neck.num_outputs)
      throw ConfigError(str("anchors.strides must hold one stride per output of the neck (",
                            neck.num_outputs, "), got ", anchors.strides.size()));
  }
};

DenseHeadSpec head_of(const RetinaNetOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "retina_cls";
  spec.boxes_name = "retina_reg";
  spec.class_channels = o.anchors.per_cell() * o.classes;
  spec.box_channels = o.anchors.per_cell() * 4;
  return spec;
}

class RetinaNet final : public DenseDetector<DenseOutputs> {
 public:
  RetinaNet(const RetinaNetOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options), options.head),
        anchors_(options.anchors) {}

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const bool torchvision = options_.torchvision();
    const Tensor valid =
        torchvision ? Tensor() : valid_anchors(options_.anchors, out.logits, images);
    const Anchors anchors = anchors_of(images, out);
    DenseTargets wanted =
        assign_dense_targets(anchors, truth_of(images, targets), valid, options_.classes,
                             options_.giou ? nullptr : &options_.coder, options_.assign);
    show_scores(out.logits, wanted.labels, ClassTargets::binary);
    const Tensor weight = torchvision ? weigh_images(wanted) : Tensor();
    std::vector<Tensor> classification, regression;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      classification.push_back(sigmoid_focal_loss(out.logits[l], wanted.labels[l], options_.classes,
                                                  options_.focal, weight));
      regression.push_back(
          box_loss(out.boxes[l], anchors.levels[l], wanted.boxes[l], wanted.weights[l]));
    }
    if (torchvision)
      return {{"classification", scaled_sum(classification, 1)},
              {"bbox_regression", scaled_sum(regression, 1)}};
    const Tensor factor = average_factor(wanted.positives);
    return {{"loss_cls", scaled_sum(classification, factor)},
            {"loss_bbox", scaled_sum(regression, factor)}};
  }

  PendingDetections predict(const ImageBatch& images) override {
    const DenseOutputs out = outputs_of(images);
    const std::vector<Tensor> anchors = anchors_of(images, out).levels;
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back(
          {out.logits[l],
           {},
           delta_decoder(out.boxes[l], anchors[l], options_.coder, images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  std::vector<DenseOutputs> head_outputs(std::vector<FeatureMaps> pyramids) const override {
    return head_(pyramids);
  }

  Tensor box_loss(const Tensor& deltas, const Tensor& anchors, const Tensor& boxes,
                  const Tensor& weights) const {
    if (!options_.giou) return smooth_l1_loss(deltas, boxes, weights, options_.smooth_l1_beta);
    const int64_t count = weights.numel();
    return iou_loss(boxes_from_deltas(deltas, anchors, options_.coder), boxes.alias({count, 4}),
                    weights.alias({count}));
  }

  Anchors anchors_of(const ImageBatch& images, const DenseOutputs& out) {
    std::vector<CellStride> strides;
    if (options_.torchvision())
      for (const Tensor& map : out.logits)
        strides.push_back(torchvision_stride(images.pixels, map.size(1), map.size(2)));
    return anchors_.levels(out.logits, strides);
  }

  RetinaNetOptions options_;
  DenseHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_retinanet(const Options& options, uint64_t seed) {
  return std::make_unique<RetinaNet>(RetinaNetOptions(options), seed);
}

}  // namespace mixpl
