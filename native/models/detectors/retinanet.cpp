// RetinaNet (Lin et al. 2017) with mmdetection's choices: see RetinaHead, MaxIoUAssigner,
// FocalLoss.
#include <algorithm>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/anchors.h"
#include "detect/max_iou_assigner.h"
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

    const Options p = o.object("test");
    test.score_thr = static_cast<float>(p.number("scoreThr", test.score_thr));
    test.nms_pre = p.integer("nmsPre", test.nms_pre);
    test.nms_iou = static_cast<float>(p.number("nmsIou", test.nms_iou));
    test.max_per_image = p.integer("maxPerImage", test.max_per_image);
    p.finish();
    if (test.nms_pre < 1 || test.max_per_image < 1)
      throw ConfigError("test.nmsPre and test.maxPerImage must be >= 1");
  }
};

class RetinaNet final : public Detector {
 public:
  RetinaNet(const RetinaNetOptions& options, uint64_t seed)
      : options_(options),
        backbone_(Scope(parameters_, seed).child("backbone"), options.backbone),
        neck_(Scope(parameters_, seed).child("neck"), backbone_.channels(), options.neck),
        head_(Scope(parameters_, seed).child("bbox_head"), options.neck.channels,
              options.anchors.per_cell(), options.classes, options.head) {
    num_classes_ = options.classes;
  }

  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) override {
    check_targets(images, targets);
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(out);
    const LevelTargets wanted = assign(images, targets, out, anchors);
    std::vector<Tensor> classification, regression;
    for (size_t level = 0; level < anchors.size(); ++level) {
      classification.push_back(sigmoid_focal_loss(out.logits[level], wanted.labels[level],
                                                  options_.classes, options_.focal));
      regression.push_back(smooth_l1_loss(out.deltas[level], wanted.deltas[level],
                                          wanted.weights[level], options_.smooth_l1_beta));
    }
    const float scale = 1.0f / wanted.normaliser;
    return {{"loss_cls", scaled_sum(classification, scale)},
            {"loss_bbox", scaled_sum(regression, scale)}};
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_of(out);
    std::vector<Detections> found(images.pixels.size(0));
    parallel_for(images.pixels.size(0), int64_t{1}, [&](int64_t n) {
      found[n] =
          dense_post_process(out.logits, out.deltas, anchors, n, options_.classes,
                             images.sizes[n].height, images.sizes[n].width, coder_, options_.test);
    });
    return found;
  }

 private:
  // Per level: labels i32 [N, HWA], deltas f32 [N, HWA, 4], weights f32 [N, HWA].
  struct LevelTargets {
    std::vector<Tensor> labels, deltas, weights;
    float normaliser = 1;
  };

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
    for (size_t level = 0; level < out.logits.size(); ++level) {
      const int64_t h = out.logits[level].size(1), w = out.logits[level].size(2);
      // Training sees a few sizes again and again; keep the anchors of the recent ones.
      if (anchor_cache_.size() > 256) anchor_cache_.clear();
      Tensor& slot = anchor_cache_[{static_cast<int64_t>(level), h, w}];
      if (!slot.defined()) slot = level_anchors(options_.anchors, static_cast<int>(level), h, w);
      anchors.push_back(slot);
    }
    return anchors;
  }

  LevelTargets assign(const ImageBatch& images, const std::vector<Target>& targets,
                      const DenseOutputs& out, const std::vector<Tensor>& anchors) const {
    const int64_t n = images.pixels.size(0), levels = static_cast<int64_t>(anchors.size());
    LevelTargets wanted;
    std::vector<int64_t> first{0};
    for (const Tensor& a : anchors) {
      wanted.labels.push_back(Tensor::empty({n, a.size(0)}, DType::i32));
      wanted.deltas.push_back(Tensor::zeros({n, a.size(0), 4}, DType::f32));
      wanted.weights.push_back(Tensor::zeros({n, a.size(0)}, DType::f32));
      first.push_back(first.back() + a.size(0));
    }
    Tensor all = Tensor::empty({first.back(), 4}, DType::f32);
    for (int64_t l = 0; l < levels; ++l)
      std::copy_n(anchors[l].data<float>(), anchors[l].numel(), all.data<float>() + 4 * first[l]);
    const Box* anchor = reinterpret_cast<const Box*>(all.data<float>());

    float normaliser = 0;
    for (int64_t image = 0; image < n; ++image) {
      const Target& target = targets[image];
      const Box* box = reinterpret_cast<const Box*>(target.boxes.data<float>());
      const std::vector<int32_t> assigned = assign_max_iou(
          all, target.boxes, valid_anchors(images.pad_sizes[image], out, first), options_.assign);
      int64_t positives = 0;
      for (int64_t l = 0; l < levels; ++l) {
        const int64_t count = first[l + 1] - first[l];
        int32_t* label = wanted.labels[l].data<int32_t>() + image * count;
        Delta* delta = reinterpret_cast<Delta*>(wanted.deltas[l].data<float>()) + image * count;
        float* weight = wanted.weights[l].data<float>() + image * count;
        for (int64_t i = 0; i < count; ++i) {
          const int32_t a = assigned[first[l] + i];
          label[i] = a == kIgnored ? -1 : static_cast<int32_t>(options_.classes);
          if (a < 0) continue;
          label[i] = target.labels.data<int32_t>()[a];
          delta[i] = coder_.encode(anchor[first[l] + i], box[a]);
          weight[i] = 1;
          ++positives;
        }
      }
      normaliser += static_cast<float>(std::max<int64_t>(positives, 1));
    }
    wanted.normaliser = std::max(normaliser, 1.0f);
    return wanted;
  }

  // Anchors of cells that lie (partly) inside the padded image; empty when that is all of them.
  std::vector<uint8_t> valid_anchors(InputSize pad, const DenseOutputs& out,
                                     const std::vector<int64_t>& first) const {
    std::vector<uint8_t> valid;
    const int64_t per = options_.anchors.per_cell();
    for (size_t l = 0; l < out.logits.size(); ++l) {
      const int64_t h = out.logits[l].size(1), w = out.logits[l].size(2);
      const double stride = options_.anchors.strides[l];
      const int64_t vh = std::min<int64_t>(h, static_cast<int64_t>(std::ceil(pad.height / stride)));
      const int64_t vw = std::min<int64_t>(w, static_cast<int64_t>(std::ceil(pad.width / stride)));
      if (vh == h && vw == w) continue;
      if (valid.empty()) valid.assign(first.back(), 1);
      for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x)
          if (y >= vh || x >= vw)
            std::fill_n(valid.begin() + first[l] + (y * w + x) * per, per, uint8_t{0});
    }
    return valid;
  }

  RetinaNetOptions options_;
  DeltaCoder coder_;
  ResNet backbone_;
  Fpn neck_;
  RetinaHead head_;
  std::map<std::array<int64_t, 3>, Tensor> anchor_cache_;
};

}  // namespace

std::unique_ptr<Detector> create_retinanet(const Options& options, uint64_t seed) {
  return std::make_unique<RetinaNet>(RetinaNetOptions(options), seed);
}

}  // namespace mixpl
