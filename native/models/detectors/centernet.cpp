// CenterNet as updated in CenterNet2 (Zhou et al. 2021), single stage over a feature pyramid, with
// mmdetection's choices.
#include <cmath>

#include "detect/centernet_targets.h"
#include "detect/normalisers.h"
#include "models/detectors/detectors.h"
#include "models/heads/dense_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/relu/relu.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

constexpr float kBoxWeight = 2;

struct CenterNetOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  std::vector<double> strides;
  CenterNetTargetOptions targets;
  GaussianFocalLossOptions focal;
  DensePostProcessOptions test;

  explicit CenterNetOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck.relu_before_extra = true;
    neck.init = init::xavier_fan_in();
    neck = FpnOptions::read(o.object("neck"), neck);
    head.norm = NormKind::gn;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    h.finish();
    strides = read_point_strides(o, neck.num_outputs);

    const Options t = o.object("train");
    targets.regress_from = {0};
    targets.regress_to = {};
    for (size_t l = 0; l + 1 < strides.size(); ++l) {  // 64 and 80 pixels at a stride of 8
      targets.regress_from.push_back(8 * strides[l]);
      targets.regress_to.push_back(10 * strides[l]);
    }
    targets.regress_from = t.numbers("regressFrom", targets.regress_from);
    targets.regress_to = t.numbers("regressTo", targets.regress_to);
    targets.min_overlap = t.number("heatMinOverlap", targets.min_overlap);
    targets.min_radius = t.number("heatMinRadius", targets.min_radius);
    targets.more_positives_loss = t.number("morePositivesLoss", targets.more_positives_loss);
    targets.more_positives = t.integer("morePositives", targets.more_positives);
    focal.positive_weight = static_cast<float>(t.number("positiveWeight", focal.positive_weight));
    focal.negative_weight = static_cast<float>(t.number("negativeWeight", focal.negative_weight));
    t.finish();
    targets.validate(neck.num_outputs);
    for (const float weight : {focal.positive_weight, focal.negative_weight})
      if (!(weight >= 0) || !std::isfinite(weight))
        throw ConfigError(str(
            "train.positiveWeight and train.negativeWeight must be numbers >= 0, got ", weight));

    test.nms_iou = 0.6f;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    e.finish();
  }
};

DenseHeadSpec head_of(const CenterNetOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "conv_cls";
  spec.boxes_name = "conv_reg";
  spec.class_channels = o.classes;
  spec.box_channels = 4;
  spec.scales = o.neck.num_outputs;
  return spec;
}

class CenterNet final : public DenseDetector<DenseOutputs> {
 public:
  CenterNet(const CenterNetOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options),
              options.head) {}

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const CenterNetTargets wanted = assign_centernet_targets(
        grids_of(out), out.boxes, truth_of(images, targets), options_.classes, options_.targets);
    show_pairs(out.logits, wanted.class_positives, ClassTargets::soft);
    std::vector<Tensor> classification, regression;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      classification.push_back(gaussian_focal_loss(out.logits[l], wanted.heat[l],
                                                   wanted.class_positives[l], options_.focal));
      const Tensor& positive = wanted.positive[l];
      regression.push_back(iou_loss(boxes_from_sides(out.boxes[l]),
                                    boxes_from_sides(wanted.sides[l]),
                                    positive.alias({positive.numel()})));
    }
    return {{"loss_cls", scaled_sum(classification, wanted.num_class_positives)},
            {"loss_bbox", scaled_sum(regression, sum_of(wanted.positive, 1), kBoxWeight)}};
  }

  PendingDetections predict(const ImageBatch& images) override {
    const DenseOutputs out = outputs_of(images);
    const std::vector<PointGrid> grids = grids_of(out);
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < grids.size(); ++l)
      levels.push_back(
          {out.logits[l], Tensor(), side_decoder(out.boxes[l], grids[l], images.pixels.size(0))});
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

  std::vector<PointGrid> grids_of(const DenseOutputs& out) const {
    std::vector<PointGrid> grids;
    for (size_t l = 0; l < out.logits.size(); ++l) {
      const double stride = options_.strides[l];
      grids.push_back({out.logits[l].size(1), out.logits[l].size(2), stride, stride, 0.5, stride});
    }
    return grids;
  }

  CenterNetOptions options_;
  DenseHead head_;
};

}  // namespace

std::unique_ptr<Detector> create_centernet(const Options& options, uint64_t seed) {
  return std::make_unique<CenterNet>(CenterNetOptions(options), seed);
}

}  // namespace mixpl
