// FCOS (Tian et al. 2019) with mmdetection's choices (centre sampling, normalised distances,
// centre-ness on the box tower), or torchvision's.
#include "detect/fcos_targets.h"
#include "detect/normalisers.h"
#include "models/detectors/detectors.h"
#include "models/heads/dense_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/relu/relu.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"

namespace mixpl {
namespace {

struct FcosOptions {
  Numerics numerics;
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  std::vector<double> strides;
  FcosTargetOptions targets;
  FocalLossOptions focal;
  IouLossOptions iou;
  DensePostProcessOptions test;

  explicit FcosOptions(const Options& o)
      : numerics(read_numerics(o)), classes(read_num_classes(o)) {
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck.relu_before_extra = true;
    neck = FpnOptions::read(o.object("neck"), neck);
    head.norm = NormKind::gn;
    head.conv_bias = true;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    h.finish();

    strides = read_point_strides(o, neck.num_outputs);

    const Options t = o.object("train");
    targets.center_radius = t.number("centerRadius", targets.center_radius);
    targets.regress_bounds = t.numbers("regressBounds", default_bounds());
    focal.alpha = static_cast<float>(t.number("focalAlpha", focal.alpha));
    focal.gamma = static_cast<float>(t.number("focalGamma", focal.gamma));
    t.finish();
    targets.torchvision = torchvision();
    targets.validate(neck.num_outputs);

    test.nms_iou = 0.6f;
    test.score_rule = torchvision() ? ScoreRule::geometric_mean : ScoreRule::product;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    e.finish();
    if (torchvision()) {
      test.min_size = -1;
      backbone.set_freeze_statistics(false);
      neck.norm_of_extra = false;
    }
  }

  bool torchvision() const { return numerics == Numerics::torchvision; }

 private:
  // 64, 128, 256, 512 for strides 8 … 128: eight cells of the finer level.
  std::vector<double> default_bounds() const {
    std::vector<double> bounds;
    for (size_t l = 0; l + 1 < strides.size(); ++l) bounds.push_back(8 * strides[l]);
    return bounds;
  }
};

DenseHeadSpec head_of(const FcosOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "conv_cls";
  spec.boxes_name = "conv_reg";
  spec.quality_name = "conv_centerness";
  spec.class_channels = o.classes;
  spec.box_channels = 4;
  if (!o.torchvision()) spec.scales = o.neck.num_outputs;
  return spec;
}

class Fcos final : public DenseDetector<DenseOutputs> {
 public:
  Fcos(const FcosOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options),
              options.head) {}

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const FcosTargets wanted = assign_fcos_targets(grids_of(images, out), truth_of(images, targets),
                                                   options_.classes, options_.targets);
    show_scores(out.logits, wanted.labels, ClassTargets::binary);
    const bool torchvision = options_.torchvision();
    std::vector<Tensor> classification, regression, centerness;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      classification.push_back(
          sigmoid_focal_loss(out.logits[l], wanted.labels[l], options_.classes, options_.focal));
      regression.push_back(
          iou_loss(boxes_from_sides(out.boxes[l]), boxes_from_sides(wanted.sides[l]),
                   flat(torchvision ? wanted.positive[l] : wanted.centerness[l]), options_.iou));
      centerness.push_back(sigmoid_bce(out.quality[l], wanted.centerness[l], wanted.positive[l]));
    }
    const Tensor positives = sum_of(wanted.positive, 1);
    if (torchvision)
      return {{"classification", scaled_sum(classification, positives)},
              {"bbox_regression", scaled_sum(regression, positives)},
              {"bbox_ctrness", scaled_sum(centerness, positives)}};
    return {{"loss_cls", scaled_sum(classification, positives)},
            {"loss_bbox", scaled_sum(regression, sum_of(wanted.centerness, 1e-6))},
            {"loss_centerness", scaled_sum(centerness, positives)}};
  }

  PendingDetections predict(const ImageBatch& images) override {
    const DenseOutputs out = outputs_of(images);
    const std::vector<PointGrid> grids = grids_of(images, out);
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < grids.size(); ++l)
      levels.push_back({out.logits[l], out.quality[l],
                        side_decoder(out.boxes[l], grids[l], images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  // Distances to the sides are at least 0, in units of the level.
  std::vector<DenseOutputs> head_outputs(std::vector<FeatureMaps> pyramids) const override {
    std::vector<DenseOutputs> outs = head_(pyramids);
    for (DenseOutputs& out : outs)
      for (Tensor& sides : out.boxes) sides = relu(sides);
    return outs;
  }

  std::vector<PointGrid> grids_of(const ImageBatch& images, const DenseOutputs& out) const {
    std::vector<PointGrid> grids;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      const int64_t h = out.logits[l].size(1), w = out.logits[l].size(2);
      const double unit = options_.strides[l];
      if (options_.torchvision()) {
        const CellStride stride = torchvision_stride(images.pixels, h, w);
        grids.push_back({h, w, stride.y, stride.x, 0, unit});
      } else {
        grids.push_back({h, w, unit, unit, 0.5, unit});
      }
    }
    return grids;
  }

  static Tensor flat(const Tensor& t) { return t.alias({t.numel()}); }

  FcosOptions options_;
  DenseHead head_;
};

}  // namespace

std::unique_ptr<Detector> create_fcos(const Options& options, uint64_t seed) {
  return std::make_unique<Fcos>(FcosOptions(options), seed);
}

}  // namespace mixpl
