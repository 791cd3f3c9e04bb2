// GFL (Li et al. 2020) with mmdetection's choices: ATSS's anchors and assignment, scores that are
// the expected overlap of the box, sides that are distributions over distances.
#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "detect/atss_assigner.h"
#include "detect/box_targets.h"
#include "detect/gfl_targets.h"
#include "detect/normalisers.h"
#include "models/detectors/detectors.h"
#include "models/heads/anchor_truth.h"
#include "models/heads/dense_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/gather_rows/gather_rows.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/quality_focal_loss/quality_focal_loss.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/side_distribution/side_distribution.h"

namespace mixpl {
namespace {

constexpr float kBoxWeight = 2, kDistributionWeight = 0.25f;
constexpr float kSides = 4;  // the reference takes the mean of the sides' distribution losses

struct GflLossOptions {
  AtssOptions assign;
  float quality_beta = 2;

  /// { topK, qualityBeta }. @throws ConfigError
  static GflLossOptions read(const Options& o) {
    GflLossOptions out;
    out.assign.top_k = o.integer("topK", out.assign.top_k);
    out.quality_beta = static_cast<float>(o.number("qualityBeta", out.quality_beta));
    out.assign.validate();
    if (!(out.quality_beta >= 1) || !std::isfinite(out.quality_beta))
      throw ConfigError(str("train.qualityBeta must be >= 1, got ", out.quality_beta));
    return out;
  }
};

/// @param project f32 [R + 1], the distance in strides that each bin stands for
Losses gfl_losses(const DenseOutputs& out, const AnchorTruth& truth, const Tensor& project,
                  const GflLossOptions& o) {
  const Tensor assigned = assign_atss(truth.anchors, truth.truth, truth.valid, o.assign);
  const BoxTargets wanted = box_targets(truth.anchors, truth.truth, assigned, truth.classes);
  show_scores(out.logits, wanted.labels, ClassTargets::soft);
  const int64_t bins = project.numel();
  std::vector<Tensor> classification, regression, distribution, weights;
  for (size_t l = 0; l < out.logits.size(); ++l) {
    const Tensor& anchors = truth.anchors.levels[l];
    // A box has no positives but its candidates.
    const int64_t most = truth.truth.total() * std::min(o.assign.top_k, anchors.size(0));
    const GflPositives positives = gfl_positives(wanted.boxes[l], wanted.positive[l], anchors,
                                                 truth.strides[l], out.logits[l], bins, most);
    const Tensor logits = gather_rows(out.boxes[l], positives.rows, 4 * bins);
    // Overlaps do not depend on where the centre is.
    const Tensor boxes = boxes_from_sides(expected_sides(logits, project));
    const Tensor targets = boxes_from_sides(positives.sides);
    const Tensor quality = overlaps_at(positives.rows, boxes, targets, wanted.positive[l].numel());
    classification.push_back(quality_focal_loss(out.logits[l], wanted.labels[l], quality,
                                                truth.classes, o.quality_beta));
    regression.push_back(iou_loss(boxes, targets, positives.weight));
    distribution.push_back(distribution_focal_loss(logits, positives.held, positives.weight));
    weights.push_back(positives.weight);
  }
  const Tensor weight = sum_of(weights, 1);
  return {{"loss_cls", scaled_sum(classification, average_factor(wanted.positives))},
          {"loss_bbox", scaled_sum(regression, weight, kBoxWeight)},
          {"loss_dfl", scaled_sum(distribution, weight, kDistributionWeight / kSides)}};
}

// The distance that each bin stands for: its number.
void fill_project(Tensor project) {
  std::vector<float> bins(project.numel());
  std::iota(bins.begin(), bins.end(), 0.0f);
  project.copy_from(Tensor::from(bins, project.shape()));
}

// Inputs and options: see read_anchor_head_case, without quality, and { topK, qualityBeta }; the
// boxes' channels are 4 (R + 1). Outputs: the three losses.
const bool registered =
    register_op("gflLosses", [](const std::vector<Tensor>& in, const Options& o) {
      const AnchorHeadCase c = read_anchor_head_case("gflLosses", in, o, false);
      const int64_t channels = c.out.boxes[0].size(3);
      for (const Tensor& boxes : c.out.boxes)
        if (channels < 8 || boxes.size(3) != channels || channels % 4 != 0)
          throw ShapeError(
              str("gflLosses: boxes must have 4 (R + 1) channels, R >= 1, on every level, ", "got ",
                  boxes.shape()));
      Tensor project = Tensor::empty({channels / 4}, DType::f32, in[0].device());
      fill_project(project);
      return tensors_of(gfl_losses(c.out, c.truth, project, GflLossOptions::read(o)));
    });

struct GflOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  int64_t reg_max = 16;  // the largest distance of a side in strides
  AnchorOptions anchors;
  GflLossOptions train;
  DensePostProcessOptions test;

  explicit GflOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck = FpnOptions::read(o.object("neck"), neck);
    head.norm = NormKind::gn;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    reg_max = h.integer("regMax", reg_max);
    h.finish();
    if (reg_max < 1 || reg_max > 1024)
      throw ConfigError(str("head.regMax must be in [1, 1024], got ", reg_max));
    anchors = read_square_anchors(o, neck.num_outputs);

    const Options t = o.object("train");
    train = GflLossOptions::read(t);
    t.finish();

    test.nms_iou = 0.6f;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    e.finish();
  }

  int64_t bins() const { return reg_max + 1; }
};

DenseHeadSpec head_of(const GflOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "gfl_cls";
  spec.boxes_name = "gfl_reg";
  spec.class_channels = o.classes;
  spec.box_channels = 4 * o.bins();
  spec.scales = o.neck.num_outputs;
  return spec;
}

class Gfl final : public DenseDetector<DenseOutputs> {
 public:
  Gfl(const GflOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, head_of(options), options.head),
        project_(
            root(seed).child("bbox_head").child("integral").buffer("project", {options.bins()}, 0)),
        anchors_(options.anchors) {
    fill_project(project_);
  }

  Losses losses_of(const DenseOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    return gfl_losses(out, anchor_truth(images, targets, out.logits, anchors_, num_classes_),
                      project_, options_.train);
  }

  PendingDetections predict(const ImageBatch& images) override {
    const DenseOutputs out = outputs_of(images);
    const std::vector<Tensor> anchors = anchors_.levels(out.logits).levels;
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back({out.logits[l],
                        {},
                        distribution_decoder(out.boxes[l], anchors[l], project_,
                                             static_cast<float>(options_.anchors.strides[l]),
                                             images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  std::vector<DenseOutputs> head_outputs(std::vector<FeatureMaps> pyramids) const override {
    return head_(pyramids);
  }

  GflOptions options_;
  DenseHead head_;
  Tensor project_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_gfl(const Options& options, uint64_t seed) {
  return std::make_unique<Gfl>(GflOptions(options), seed);
}

}  // namespace mixpl
