// PAA (Kim and Lee 2020) with mmdetection's choices: ATSS's head with an IoU in place of the
// centre-ness, anchors assigned by how well the head does on them.
#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "detect/box_iou.h"
#include "detect/box_targets.h"
#include "detect/max_iou_assigner.h"
#include "detect/paa_assigner.h"
#include "models/backbones/resnet.h"
#include "models/detectors/detectors.h"
#include "models/heads/anchor_truth.h"
#include "models/heads/dense_head.h"
#include "models/necks/fpn.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"
#include "ops/focal_loss/focal_loss.h"
#include "ops/iou_loss/iou_loss.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"

namespace mixpl {
namespace {

constexpr float kBoxWeight = 1.3f, kQualityWeight = 0.5f;
constexpr DeltaCoder kCoder{.stds = {0.1f, 0.1f, 0.2f, 0.2f}};

struct PaaLossOptions {
  MaxIouOptions assign{.pos_iou = 0.1f, .neg_iou = 0.1f};  // of the first step
  int64_t top_k = 9;  // candidates a level and box, of the second
  FocalLossOptions focal;

  /// { posIou, negIou, minPosIou, topK, focalAlpha, focalGamma }. @throws ConfigError
  static PaaLossOptions read(const Options& o) {
    PaaLossOptions out;
    const auto number = [&](const char* name, float& value) {
      value = static_cast<float>(o.number(name, value));
    };
    number("posIou", out.assign.pos_iou);
    number("negIou", out.assign.neg_iou);
    number("minPosIou", out.assign.min_pos_iou);
    number("focalAlpha", out.focal.alpha);
    number("focalGamma", out.focal.gamma);
    out.top_k = o.integer("topK", out.top_k);
    out.assign.validate();
    if (out.top_k < 1 || out.top_k > 1 << 16)
      throw ConfigError(str("train.topK must be in [1, 65536], got ", out.top_k));
    return out;
  }
};

BoxTargets assign(const DenseOutputs& out, const AnchorTruth& truth, const PaaLossOptions& o) {
  std::vector<int64_t> sizes;
  std::vector<float> corners;
  for (const Tensor& level : truth.anchors) {
    sizes.push_back(level.size(0));
    corners.insert(corners.end(), level.data<float>(), level.data<float>() + level.numel());
  }
  const int64_t count = static_cast<int64_t>(corners.size() / 4);
  const Tensor all = Tensor::from(corners, {count, 4});
  static const std::vector<uint8_t> all_valid;
  std::vector<std::vector<int32_t>> assigned;
  for (size_t n = 0; n < truth.boxes.size(); ++n) {
    const std::vector<int32_t> first = assign_max_iou(
        all, truth.boxes[n], truth.valid.empty() ? all_valid : truth.valid[n], o.assign);
    std::vector<float> costs(count, 0.0f);
    int64_t at = 0;
    for (size_t l = 0; l < sizes.size(); at += sizes[l++])
      paa_costs(out.logits[l], out.boxes[l], static_cast<int64_t>(n), truth.anchors[l],
                truth.boxes[n], truth.labels[n], truth.classes, first.data() + at, kCoder, o.focal,
                kBoxWeight, costs.data() + at);
    assigned.push_back(select_paa(sizes, first, costs, truth.boxes[n].size(0), o.top_k));
  }
  return box_targets(truth.anchors, truth.boxes, truth.labels, assigned, truth.classes);
}

// IoU of each positive with its box, 0 elsewhere; a constant to the losses.
Tensor overlaps_of(const Tensor& boxes, const BoxTargets& wanted, size_t level) {
  const Box* found = as_boxes("paa", "boxes", boxes);
  const Box* target = reinterpret_cast<const Box*>(wanted.boxes[level].data<float>());
  const float* positive = wanted.positive[level].data<float>();
  Tensor overlaps = Tensor::empty({boxes.size(0)}, DType::f32);
  float* out = overlaps.data<float>();
  parallel_for(boxes.size(0),
               [=](int64_t i) { out[i] = positive[i] > 0 ? box_iou(found[i], target[i]) : 0.0f; });
  return overlaps;
}

Losses paa_losses(const DenseOutputs& out, const AnchorTruth& truth, const PaaLossOptions& o) {
  const BoxTargets wanted = assign(out, truth, o);
  std::vector<Tensor> classification, regression, quality, overlaps;
  for (size_t l = 0; l < truth.anchors.size(); ++l) {
    const Tensor boxes = boxes_from_deltas(out.boxes[l], truth.anchors[l], kCoder);
    overlaps.push_back(overlaps_of(boxes, wanted, l));
    classification.push_back(
        sigmoid_focal_loss(out.logits[l], wanted.labels[l], truth.classes, o.focal));
    regression.push_back(iou_loss(boxes, wanted.boxes[l].alias({boxes.size(0), 4}), overlaps[l]));
    quality.push_back(sigmoid_bce(out.quality[l], overlaps[l], wanted.positive[l]));
  }
  const double positives = static_cast<double>(
      std::accumulate(wanted.positives.begin(), wanted.positives.end(), int64_t{0}));
  const double images = static_cast<double>(truth.boxes.size());
  const auto over = [](double weight, double sum) { return static_cast<float>(weight / sum); };
  return {{"loss_cls", scaled_sum(classification, over(1, std::max({positives, images, 1.0})))},
          {"loss_bbox", scaled_sum(regression, over(kBoxWeight, std::max(sum_of(overlaps), 1e-6)))},
          {"loss_iou", scaled_sum(quality, over(kQualityWeight, std::max(positives, 1.0)))}};
}

// Inputs and options: see read_anchor_head_case and PaaLossOptions::read. Outputs: the three
// losses.
const bool registered =
    register_op("paaLosses", [](const std::vector<Tensor>& in, const Options& o) {
      const AnchorHeadCase c = read_anchor_head_case("paaLosses", in, o, true);
      return tensors_of(paa_losses(c.out, c.truth, PaaLossOptions::read(o)));
    });

struct PaaOptions {
  int64_t classes;
  ResNetOptions backbone;
  FpnOptions neck;
  TowerOptions head;
  AnchorOptions anchors;
  PaaLossOptions train;
  DensePostProcessOptions test;

  explicit PaaOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = ResNetOptions::read(o.object("backbone"));
    neck.extra = FpnOptions::Extra::on_output;
    neck = FpnOptions::read(o.object("neck"), neck);
    head.norm = NormKind::gn;
    const Options h = o.object("head");
    head = TowerOptions::read(h, head);
    h.finish();
    anchors = read_square_anchors(o, neck.num_outputs);

    const Options t = o.object("train");
    train = PaaLossOptions::read(t);
    t.finish();

    test.nms_iou = 0.6f;
    test.score_rule = ScoreRule::geometric_mean;
    test.per_anchor = true;
    const Options e = o.object("test");
    test = DensePostProcessOptions::read(e, test);
    test.vote = e.boolean("scoreVoting", true);
    e.finish();
  }
};

DenseHeadSpec head_of(const PaaOptions& o) {
  DenseHeadSpec spec;
  spec.classes_name = "atss_cls";
  spec.boxes_name = "atss_reg";
  spec.quality_name = "atss_centerness";  // an IoU, under the name of the head it comes from
  spec.class_channels = o.classes;
  spec.box_channels = 4;
  spec.scales = o.neck.num_outputs;
  return spec;
}

class Paa final : public Detector {
 public:
  Paa(const PaaOptions& options, uint64_t seed)
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
    return paa_losses(out, anchor_truth(images, targets, out.logits, anchors_, num_classes_),
                      options_.train);
  }

  std::vector<Detections> predict(const ImageBatch& images) override {
    const DenseOutputs out = head_(neck_(backbone_(images.pixels)));
    const std::vector<Tensor> anchors = anchors_.levels(out.logits);
    std::vector<DenseLevel> levels;
    for (size_t l = 0; l < anchors.size(); ++l)
      levels.push_back({out.logits[l], out.quality[l],
                        delta_decoder(out.boxes[l], anchors[l], kCoder, images.pixels.size(0))});
    return dense_post_process(levels, sizes_of(images), options_.classes, options_.test);
  }

 private:
  PaaOptions options_;
  ResNet backbone_;
  Fpn neck_;
  DenseHead head_;
  AnchorGenerator anchors_;
};

}  // namespace

std::unique_ptr<Detector> create_paa(const Options& options, uint64_t seed) {
  return std::make_unique<Paa>(PaaOptions(options), seed);
}

}  // namespace mixpl
