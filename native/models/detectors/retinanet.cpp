// RetinaNet (Lin et al. 2017) with mmdetection's choices, or torchvision's; see MaxIouOptions,
// sigmoid_focal_loss, smooth_l1_loss.
#include <cmath>

#include "core/check.h"
#include "detect/anchors.h"
#include "detect/dense_targets.h"
#include "models/backbones/resnet.h"
#include "models/detectors/detectors.h"
#include "models/heads/dense_head.h"
#include "models/necks/fpn.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

struct RetinaNetOptions {
  Numerics numerics;
  int64_t classes;
  ResNetOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  MaxIouOptions assign;
  DeltaCoder coder;
  FocalLossOptions focal;
  float smooth_l1_beta = 0;  // plain L1
  DensePostProcessOptions test;

  explicit RetinaNetOptions(const Options& o)
      : numerics(read_numerics(o)), classes(read_num_classes(o)) {
    backbone = ResNetOptions::read(o.object("backbone"));
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
    t.finish();
    assign.validate();

    const Options p = o.object("test");
    test = DensePostProcessOptions::read(p, test);
    p.finish();
    if (torchvision()) {
      assign.low_quality = LowQuality::restore_best;
      coder.both_sides = false;
      test.min_size = -1;
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

class RetinaNet final : public Detector {
 public:
  RetinaNet(const RetinaNetOptions& options, uint64_t seed)
      : options_(options),
        backbone_(Scope(parameters_, seed).child("backbone"), options.backbone),
        neck_(Scope(parameters_, seed).child("neck"), backbone_.channels(), options.neck),
        head_(Scope(parameters_, seed).child("bbox_head"), options.neck.channels, head_of(options),
              options.head),
        anchors_(options.anchors) {
    num_classes_ = options.classes;
  }

  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) override {
    check_targets(images, targets);
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(images, out);
    DenseTargets wanted = assign(images, targets, out, anchors);
    const bool torchvision = options_.torchvision();
    const Tensor weight = torchvision ? image_weights(wanted) : Tensor();
    std::vector<Tensor> classification, regression;
    for (size_t l = 0; l < anchors.size(); ++l) {
      classification.push_back(sigmoid_focal_loss(out.logits[l], wanted.labels[l], options_.classes,
                                                  options_.focal, weight));
      if (torchvision) weigh_images(wanted.weights[l], weight);
      regression.push_back(smooth_l1_loss(out.boxes[l], wanted.deltas[l], wanted.weights[l],
                                          options_.smooth_l1_beta));
    }
    if (torchvision)
      return {{"classification", scaled_sum(classification, 1)},
              {"bbox_regression", scaled_sum(regression, 1)}};
    const float scale = 1.0f / static_cast<float>(wanted.average_factor());
    return {{"loss_cls", scaled_sum(classification, scale)},
            {"loss_bbox", scaled_sum(regression, scale)}};
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(images, out);
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back(
          {out.logits[l],
           {},
           delta_decoder(out.boxes[l], anchors[l], options_.coder, images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  // torchvision takes the mean over the images of each image's loss over its foreground.
  Tensor image_weights(const DenseTargets& wanted) const {
    const size_t images = wanted.positives.size();
    std::vector<float> weight;
    for (int64_t n : wanted.positives)
      weight.push_back(1.0f / static_cast<float>(std::max<int64_t>(n, 1) * images));
    return Tensor::from(weight, {static_cast<int64_t>(images)});
  }

  static void weigh_images(Tensor& weights, const Tensor& factor) {
    const int64_t each = weights.numel() / factor.numel();
    for (int64_t i = 0; i < weights.numel(); ++i)
      weights.data<float>()[i] *= factor.data<float>()[i / each];
  }

  std::vector<Tensor> anchors_of(const ImageBatch& images, const DenseOutputs& out) {
    std::vector<Tensor> anchors;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      const int64_t h = out.logits[l].size(1), w = out.logits[l].size(2);
      const CellStride stride =
          options_.torchvision() ? torchvision_stride(images.pixels, h, w) : CellStride{};
      anchors.push_back(anchors_.level(static_cast<int>(l), h, w, stride));
    }
    return anchors;
  }

  DenseTargets assign(const ImageBatch& images, const std::vector<Target>& targets,
                      const DenseOutputs& out, const std::vector<Tensor>& anchors) const {
    std::vector<std::vector<uint8_t>> valid;
    if (!options_.torchvision()) valid = valid_anchors(options_.anchors, out.logits, images);
    return assign_dense_targets(anchors, boxes_of(targets), labels_of(targets), valid,
                                options_.classes, options_.coder, options_.assign);
  }

  RetinaNetOptions options_;
  ResNet backbone_;
  Fpn neck_;
  DenseHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_retinanet(const Options& options, uint64_t seed) {
  return std::make_unique<RetinaNet>(RetinaNetOptions(options), seed);
}

}  // namespace mixpl
