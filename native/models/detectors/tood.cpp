// TOOD (Feng et al. 2021), anchor-free, with mmdetection's choices. Training begins with ATSS
// assignment and the focal loss; after `iterationsBeforeAlignment` optimizer steps it goes on with
// task-aligned assignment and the quality focal loss. The reference switches by epoch, and its
// semi-supervised runs, whose epoch never changes, never do: that is the default here.
#include <cmath>

#include "core/context.h"
#include "detect/atss_assigner.h"
#include "detect/box_targets.h"
#include "detect/normalisers.h"
#include "detect/task_aligned_assigner.h"
#include "models/detectors/detectors.h"
#include "models/heads/tood_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/prob_focal_loss/prob_focal_loss.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

constexpr float kBoxWeight = 2;

struct ToodOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  int64_t iterations_before_alignment = -1;  // -1: never aligned
  AtssOptions warm_up;
  TaskAlignedOptions align;
  FocalLossOptions focal;
  float quality_beta = 2;
  DensePostProcessOptions test;

  explicit ToodOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck = FpnOptions::read(o.object("neck"), neck);
    head.stacked_convs = 6;
    head.norm = NormKind::gn;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    h.finish();
    if (head.norm != NormKind::gn) throw ConfigError("head.norm must be 'gn' for TOOD");
    if (head.channels < 8)
      throw ConfigError(str("head.channels must be >= 8 for TOOD, got ", head.channels));
    if (head.stacked_convs < 1) throw ConfigError("head.stackedConvs must be >= 1 for TOOD, got 0");

    anchors = read_square_anchors(o, neck.num_outputs);

    const Options t = o.object("train");
    if (t.has("iterationsBeforeAlignment")) {
      iterations_before_alignment = t.integer("iterationsBeforeAlignment", 0);
      if (iterations_before_alignment < 0)
        throw ConfigError(str("train.iterationsBeforeAlignment must be >= 0 or null (never), got ",
                              iterations_before_alignment));
    }
    warm_up.top_k = t.integer("topK", warm_up.top_k);
    align.top = t.integer("alignTop", align.top);
    align.alpha = static_cast<float>(t.number("alignAlpha", align.alpha));
    align.beta = static_cast<float>(t.number("alignBeta", align.beta));
    focal.alpha = static_cast<float>(t.number("focalAlpha", focal.alpha));
    focal.gamma = static_cast<float>(t.number("focalGamma", focal.gamma));
    quality_beta = static_cast<float>(t.number("qualityBeta", quality_beta));
    t.finish();
    warm_up.validate();
    align.validate();
    if (!(quality_beta >= 1) || !std::isfinite(quality_beta))
      throw ConfigError(str("train.qualityBeta must be >= 1, got ", quality_beta));

    test.nms_iou = 0.6f;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    e.finish();
    test.score_rule = ScoreRule::probabilities;
  }
};

// Targets of a batch; per level the weight of an anchor's box, which is its soft target too once
// the tasks are aligned.
struct ToodTargets {
  BoxTargets boxes;             // in strides
  std::vector<Tensor> weights;  // per level f32 [N, A_l]
};

class Tood final : public DenseDetector<ToodOutputs> {
 public:
  Tood(const ToodOptions& options, uint64_t seed)
      : DenseDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        head_(root(seed).child("bbox_head"), options.neck.channels, options.classes,
              options.neck.num_outputs, options.head),
        anchors_(options.anchors) {}

  Losses losses_of(const ToodOutputs& out, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const bool aligned = options_.iterations_before_alignment >= 0 &&
                         Context::current().iteration >= options_.iterations_before_alignment;
    const ToodTargets wanted = assign(images, targets, out, aligned);
    show_scores(out.scores, wanted.boxes.labels,
                aligned ? ClassTargets::soft : ClassTargets::binary, true);
    std::vector<Tensor> classification, regression;
    for (size_t l = 0; l < out.scores.size(); ++l) {
      const Tensor &labels = wanted.boxes.labels[l], &weight = wanted.weights[l];
      const int64_t count = weight.numel();
      classification.push_back(
          aligned ? prob_quality_focal_loss(out.scores[l], labels, weight, options_.classes,
                                            options_.quality_beta)
                  : prob_focal_loss(out.scores[l], labels, options_.classes, options_.focal));
      regression.push_back(
          iou_loss(out.boxes[l], wanted.boxes.boxes[l].alias({count, 4}), weight.alias({count})));
    }
    const Tensor box_sum = sum_of(wanted.weights, 1);
    const Tensor class_sum = aligned ? box_sum : sum_of(wanted.boxes.positive, 1);
    return {{"loss_cls", scaled_sum(classification, class_sum)},
            {"loss_bbox", scaled_sum(regression, box_sum, kBoxWeight)}};
  }

  PendingDetections predict(const ImageBatch& images) override {
    const ToodOutputs out = outputs_of(images);
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < out.scores.size(); ++l) {
      const float stride = static_cast<float>(options_.anchors.strides[l]);
      levels.push_back(
          {out.scores[l], {}, corner_decoder(out.boxes[l], stride, images.pixels.size(0))});
    }
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  std::vector<ToodOutputs> head_outputs(std::vector<FeatureMaps> pyramids) const override {
    return head_(pyramids);
  }

  static Box scaled(Box b, float by) { return {b.x1 * by, b.y1 * by, b.x2 * by, b.y2 * by}; }

  ToodTargets assign(const ImageBatch& images, const std::vector<Target>& targets,
                     const ToodOutputs& out, bool aligned) {
    const Anchors anchors = anchors_.levels(out.scores);
    const Truth truth = truth_of(images, targets);
    const Tensor valid = valid_anchors(options_.anchors, out.scores, images);
    const std::vector<double>& strides = options_.anchors.strides;
    const auto boxes = [&](const Tensor& assigned) {
      return box_targets(anchors, truth, assigned, options_.classes, strides);
    };
    if (aligned) {
      const TaskAlignment a = assign_task_aligned({out.scores, out.boxes, strides}, anchors, truth,
                                                  valid, options_.align);
      return {boxes(a.assigned), a.quality};
    }
    const Tensor assigned = assign_atss(anchors, truth, valid, options_.warm_up);
    return {boxes(assigned), anchor_centerness(anchors, truth, assigned)};
  }

  ToodOptions options_;
  ToodHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_tood(const Options& options, uint64_t seed) {
  return std::make_unique<Tood>(ToodOptions(options), seed);
}

}  // namespace mixpl
