// RetinaNet (Lin et al. 2017) with mmdetection's choices: see RetinaHead, MaxIoUAssigner,
// FocalLoss.
#include <array>
#include <cmath>

#include "core/check.h"
#include "detect/anchors.h"
#include "detect/dense_targets.h"
#include "models/backbones/resnet.h"
#include "models/detectors/detectors.h"
#include "models/heads/retina_head.h"
#include "models/necks/fpn.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/l1_loss/l1_loss.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

struct RetinaNetOptions {
  ResNetOptions backbone;
  FpnOptions neck;
  RetinaHeadOptions head;
  AnchorOptions anchors;
  MaxIouOptions assign;
  FocalLossOptions focal;
  float smooth_l1_beta = 0;  // plain L1
  DensePostProcessOptions test;
  int64_t classes = 0;

  explicit RetinaNetOptions(const Options& o) {
    classes = o.integer("numClasses", 0);
    if (classes < 1 || classes > 1 << 16)
      throw ConfigError(str("numClasses must be in [1, 65536], got ", classes));
    backbone = ResNetOptions::read(o.object("backbone"));
    neck = FpnOptions::read(o.object("neck"), FpnOptions{});
    head = RetinaHeadOptions::read(o.object("head"));

    const Options a = o.object("anchors");
    anchors.strides = a.numbers("strides", anchors.strides);
    anchors.ratios = a.numbers("ratios", anchors.ratios);
    const double octave = a.number("octaveBaseScale", 4);
    const int64_t per_octave = a.integer("scalesPerOctave", 3);
    if (per_octave < 1 || per_octave > 16)
      throw ConfigError(str("anchors.scalesPerOctave must be in [1, 16], got ", per_octave));
    anchors.scales.clear();
    for (int64_t i = 0; i < per_octave; ++i)
      anchors.scales.push_back(octave * std::pow(2.0, double(i) / double(per_octave)));
    a.finish();
    anchors.validate();
    if (static_cast<int>(anchors.strides.size()) != neck.num_outputs)
      throw ConfigError(str("anchors.strides must hold one stride per output of the neck (",
                            neck.num_outputs, "), got ", anchors.strides.size()));

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
    test.score_thr = static_cast<float>(p.number("scoreThr", test.score_thr));
    test.nms_pre = p.integer("nmsPre", test.nms_pre);
    test.nms_iou = static_cast<float>(p.number("nmsIou", test.nms_iou));
    test.max_per_image = p.integer("maxPerImage", test.max_per_image);
    p.finish();
    test.validate();
  }
};

class RetinaNet final : public Detector {
 public:
  RetinaNet(const RetinaNetOptions& options, uint64_t seed)
      : options_(options),
        backbone_(Scope(parameters_, seed).child("backbone"), options.backbone),
        neck_(Scope(parameters_, seed).child("neck"), backbone_.channels(), options.neck),
        head_(Scope(parameters_, seed).child("bbox_head"), options.neck.channels,
              options.anchors.per_cell(), options.classes, options.head),
        anchors_(options.anchors) {
    num_classes_ = options.classes;
  }

  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) override {
    check_targets(images, targets);
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(out);
    const DenseTargets wanted = assign(images, targets, out, anchors);
    std::vector<Tensor> classification, regression;
    for (size_t level = 0; level < anchors.size(); ++level) {
      classification.push_back(sigmoid_focal_loss(out.logits[level], wanted.labels[level],
                                                  options_.classes, options_.focal));
      regression.push_back(smooth_l1_loss(out.deltas[level], wanted.deltas[level],
                                          wanted.weights[level], options_.smooth_l1_beta));
    }
    const float scale = 1.0f / static_cast<float>(wanted.average_factor());
    return {{"loss_cls", scaled_sum(classification, scale)},
            {"loss_bbox", scaled_sum(regression, scale)}};
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(out);
    std::vector<std::array<float, 2>> sizes;
    for (const InputSize& size : images.sizes) sizes.push_back({size.height, size.width});
    return dense_post_process(out.logits, out.deltas, anchors, sizes, options_.classes, coder_,
                              options_.test);
  }

 private:
  void check_targets(const ImageBatch& images, const std::vector<Target>& targets) const {
    if (static_cast<int64_t>(targets.size()) != images.pixels.size(0))
      throw ShapeError(str("detector.loss: targets must have one entry per image (",
                           images.pixels.size(0), "), got ", targets.size()));
    for (size_t n = 0; n < targets.size(); ++n) {
      const int32_t* label = targets[n].labels.data<int32_t>();
      const float* box = targets[n].boxes.data<float>();
      for (int64_t i = 0; i < targets[n].labels.numel(); ++i) {
        if (label[i] < 0 || label[i] >= options_.classes)
          throw RangeError(str("detector.loss: label ", i, " of image ", n, " must be in [0, ",
                               options_.classes - 1, "], got ", label[i]));
        const float *b = box + 4 * i, w = b[2] - b[0], h = b[3] - b[1];
        if (!(w > 0 && h > 0 && std::isfinite(w) && std::isfinite(h)))
          throw RangeError(str("detector.loss: box ", i, " of image ", n,
                               " must have x1 < x2 and y1 < y2, all finite, got [", b[0], ", ",
                               b[1], ", ", b[2], ", ", b[3], "]"));
      }
    }
  }

  std::vector<Tensor> anchors_of(const DenseOutputs& out) {
    std::vector<Tensor> anchors;
    for (size_t l = 0; l < out.logits.size(); ++l)
      anchors.push_back(
          anchors_.level(static_cast<int>(l), out.logits[l].size(1), out.logits[l].size(2)));
    return anchors;
  }

  DenseTargets assign(const ImageBatch& images, const std::vector<Target>& targets,
                      const DenseOutputs& out, const std::vector<Tensor>& anchors) const {
    std::vector<Tensor> boxes, labels;
    std::vector<std::vector<uint8_t>> valid;
    for (size_t n = 0; n < targets.size(); ++n) {
      boxes.push_back(targets[n].boxes);
      labels.push_back(targets[n].labels);
      valid.push_back(valid_anchors(images.pad_sizes[n], out, anchors));
    }
    return assign_dense_targets(anchors, boxes, labels, valid, options_.classes, coder_,
                                options_.assign);
  }

  // Anchors of cells that begin inside the padded image; empty when that is all of them.
  std::vector<uint8_t> valid_anchors(InputSize pad, const DenseOutputs& out,
                                     const std::vector<Tensor>& anchors) const {
    int64_t count = 0;
    for (const Tensor& level : anchors) count += level.size(0);
    std::vector<uint8_t> valid(count, 1);
    bool any_invalid = false;
    uint8_t* at = valid.data();
    for (size_t l = 0; l < anchors.size(); at += anchors[l++].size(0))
      any_invalid |=
          mark_valid_anchors(options_.anchors, static_cast<int>(l), out.logits[l].size(1),
                             out.logits[l].size(2), pad.height, pad.width, at);
    return any_invalid ? valid : std::vector<uint8_t>{};
  }

  RetinaNetOptions options_;
  DeltaCoder coder_;
  ResNet backbone_;
  Fpn neck_;
  RetinaHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_retinanet(const Options& options, uint64_t seed) {
  return std::make_unique<RetinaNet>(RetinaNetOptions(options), seed);
}

}  // namespace mixpl
