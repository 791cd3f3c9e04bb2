// GFL (Li et al. 2020) with mmdetection's choices: ATSS's anchors and assignment, scores that are
// the expected overlap of the box, sides that are distributions over distances.
#include <algorithm>

#include "core/check.h"
#include "detect/atss_assigner.h"
#include "detect/box_iou.h"
#include "models/backbones/resnet.h"
#include "models/detectors/detectors.h"
#include "models/heads/anchor_truth.h"
#include "models/heads/dense_head.h"
#include "models/necks/fpn.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/gather_rows/gather_rows.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/quality_focal_loss/quality_focal_loss.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/side_distribution/side_distribution.h"
#include "ops/sigmoid_bce/sigmoid_bce_math.h"

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

// The anchors of a level that have a box, images in turn: their rows among [N A_l], and the
// distances of their centres to the sides of the box in strides.
struct Positives {
  Tensor rows;   // i32 [P]
  Tensor sides;  // f32 [P, 4]
};

Positives positives_of(const BoxTargets& wanted, size_t level, const Tensor& anchors,
                       double stride) {
  const Tensor& positive = wanted.positive[level];
  const Box* box = reinterpret_cast<const Box*>(wanted.boxes[level].data<float>());
  const Box* anchor = as_boxes("gflLosses", "anchors", anchors);
  const float unit = static_cast<float>(stride);
  std::vector<int32_t> rows;
  std::vector<float> sides;
  for (int64_t i = 0; i < positive.numel(); ++i) {
    if (positive.data<float>()[i] == 0) continue;
    const Box a = anchor[i % anchors.size(0)];
    const Sides s = encode_sides((a.x1 + a.x2) * 0.5f, (a.y1 + a.y2) * 0.5f, box[i]);
    rows.push_back(static_cast<int32_t>(i));
    sides.insert(sides.end(), {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit});
  }
  const int64_t count = static_cast<int64_t>(rows.size());
  return {Tensor::from(rows, {count}), Tensor::from(sides, {count, 4})};
}

// Targets of the distributions: inside the bins by 0.1 (mmdetection's DistancePointBBoxCoder).
Tensor held_in(const Tensor& sides, int64_t bins) {
  Tensor out = sides.clone();
  const float most = static_cast<float>(bins - 1) - 0.1f;
  float* side = out.data<float>();
  for (int64_t i = 0; i < out.numel(); ++i) side[i] = lesser(greater(side[i], 0.0f), most);
  return out;
}

// Largest class probability of some rows, a constant to the losses.
Tensor best_scores(const Tensor& logits, const Tensor& rows, int64_t classes) {
  Tensor out = Tensor::empty({rows.numel()}, DType::f32);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    const auto* x = logits.data<decltype(tag)>();
    for (int64_t p = 0; p < rows.numel(); ++p) {
      const auto* own = x + rows.data<int32_t>()[p] * classes;
      float most = float(own[0]);
      for (int64_t c = 1; c < classes; ++c) most = greater(most, float(own[c]));
      out.data<float>()[p] = sigmoid_f32(most);
    }
  });
  return out;
}

// The overlap of the boxes as they are, a constant to the losses; per anchor, 0 without a box.
Tensor overlaps_of(const Tensor& pred, const Tensor& wanted, const Tensor& rows, int64_t anchors) {
  Tensor out = Tensor::zeros({anchors}, DType::f32);
  const Box *a = reinterpret_cast<const Box*>(pred.data<float>()),
            *b = reinterpret_cast<const Box*>(wanted.data<float>());
  for (int64_t p = 0; p < rows.numel(); ++p)
    out.data<float>()[rows.data<int32_t>()[p]] = box_iou(a[p], b[p]);
  return out;
}

/// @param project f32 [R + 1], the distance in strides that each bin stands for
Losses gfl_losses(const DenseOutputs& out, const AnchorTruth& truth, const Tensor& project,
                  const GflLossOptions& o) {
  const BoxTargets wanted = assign_atss_targets(truth.anchors, truth.valid, truth.boxes,
                                                truth.labels, truth.classes, o.assign);
  const int64_t bins = project.numel();
  std::vector<Tensor> classification, regression, distribution, weights;
  for (size_t l = 0; l < truth.anchors.size(); ++l) {
    const Positives positives = positives_of(wanted, l, truth.anchors[l], truth.strides[l]);
    const Tensor logits = gather_rows(out.boxes[l], positives.rows, 4 * bins);
    // Overlaps do not depend on where the centre is.
    const Tensor boxes = boxes_from_sides(expected_sides(logits, project));
    const Tensor targets = boxes_from_sides(positives.sides);
    const Tensor weight = best_scores(out.logits[l], positives.rows, truth.classes);
    const Tensor quality = overlaps_of(boxes, targets, positives.rows, wanted.positive[l].numel());
    classification.push_back(quality_focal_loss(out.logits[l], wanted.labels[l], quality,
                                                truth.classes, o.quality_beta));
    regression.push_back(iou_loss(boxes, targets, weight));
    distribution.push_back(distribution_focal_loss(logits, held_in(positives.sides, bins), weight));
    weights.push_back(weight);
  }
  const float per_positive =
      1.0f / static_cast<float>(std::max<int64_t>(wanted.average_factor(), 1));
  const float per_weight = static_cast<float>(1.0 / std::max(sum_of(weights), 1.0));
  return {{"loss_cls", scaled_sum(classification, per_positive)},
          {"loss_bbox", scaled_sum(regression, kBoxWeight * per_weight)},
          {"loss_dfl", scaled_sum(distribution, kDistributionWeight / kSides * per_weight)}};
}

void fill_project(Tensor project) {
  for (int64_t k = 0; k < project.numel(); ++k) project.data<float>()[k] = static_cast<float>(k);
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
      Tensor project = Tensor::empty({channels / 4}, DType::f32);
      fill_project(project);
      return tensors_of(gfl_losses(c.out, c.truth, project, GflLossOptions::read(o)));
    });

struct GflOptions {
  int64_t classes;
  ResNetOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  int64_t reg_max = 16;  // the largest distance of a side in strides
  AnchorOptions anchors;
  GflLossOptions train;
  DensePostProcessOptions test;

  explicit GflOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = ResNetOptions::read(o.object("backbone"));
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

class Gfl final : public Detector {
 public:
  Gfl(const GflOptions& options, uint64_t seed)
      : options_(options),
        backbone_(Scope(parameters_, seed).child("backbone"), options.backbone),
        neck_(Scope(parameters_, seed).child("neck"), backbone_.channels(), options.neck),
        head_(Scope(parameters_, seed).child("bbox_head"), options.neck.channels, head_of(options),
              options.head),
        project_(Scope(parameters_, seed)
                     .child("bbox_head")
                     .child("integral")
                     .buffer("project", {options.bins()}, 0)),
        anchors_(options.anchors) {
    num_classes_ = options.classes;
    fill_project(project_);
  }

  Losses loss(const ImageBatch& images, const std::vector<Target>& targets) override {
    check_targets(images, targets);
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    return gfl_losses(out, anchor_truth(images, targets, out.logits, anchors_, num_classes_),
                      project_, options_.train);
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_.levels(out.logits);
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
  GflOptions options_;
  ResNet backbone_;
  Fpn neck_;
  DenseHead head_;
  Tensor project_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_gfl(const Options& options, uint64_t seed) {
  return std::make_unique<Gfl>(GflOptions(options), seed);
}

}  // namespace mixpl
