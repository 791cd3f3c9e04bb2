// Sparse R-CNN (Sun et al. 2021, arXiv:2011.12450) with mmdetection's choices: a few learned boxes,
// each moved stage by stage by what is seen in it.
#include "detect/queries.h"
#include "detect/query_regions.h"
#include "models/detectors/detectors.h"
#include "models/heads/dynamic_head.h"
#include "models/heads/query_head.h"
#include "models/heads/roi_head.h"
#include "models/probe.h"
#include "models/pyramid_detector.h"
#include "models/transformer/memory_encoder.h"
#include "ops/centers_from_deltas/centers_from_deltas.h"

namespace mixpl {
namespace {

struct SparseRcnnOptions {
  int64_t classes;
  BackboneOptions backbone;
  FpnOptions neck;
  int64_t proposals = 100;
  int64_t stages = 6;
  DynamicHeadOptions head;
  RegionFeatures features;
  DeltaCoder coder;
  QueryLossOptions losses;
  int64_t max_per_image = 100;

  explicit SparseRcnnOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.first_level = 2;
    neck.num_outputs = 4;
    neck.extra = FpnOptions::Extra::none;
    neck = FpnOptions::read(o.object("neck"), neck);
    // Regions come from the levels of the backbone, whatever the neck adds.
    features.strides.clear();
    for (int level = neck.first_level; level < std::min(neck.first_level + neck.num_outputs, 6);
         ++level)
      features.strides.push_back(1 << level);
    features.align = {head.size, 2, true};
    proposals = read_count(o, "", "proposals", proposals);
    const Options h = o.object("head");
    stages = read_count(h, "head.", "stages", stages);
    head.classes = classes;
    head.channels = neck.channels;
    head = DynamicHeadOptions::read(h, head);
    h.finish();
    coder.stds = {0.5f, 0.5f, 1, 1};
    losses.matching.xyxy_l1 = true;
    losses = QueryLossOptions::read(o.object("train"), losses);
    const Options t = o.object("test");
    max_per_image = read_count(t, "test.", "maxPerImage", max_per_image);
    t.finish();
  }
};

class SparseRcnn final : public FpnDetector {
 public:
  SparseRcnn(const SparseRcnnOptions& options, uint64_t seed)
      : FpnDetector(seed, options.classes, options.backbone, options.neck), options_(options) {
    const Scope root(parameters_, seed), proposals = root.child("rpn_head");
    boxes_ = proposals.child("init_proposal_bboxes")
                 .weight("weight", {options.proposals, 4}, [](Tensor& t, const Philox&) {
                   float* p = t.data<float>();  // each the whole image
                   for (int64_t i = 0; i < t.numel(); ++i) p[i] = i % 4 < 2 ? 0.5f : 1.0f;
                 });
    features_ = proposals.child("init_proposal_features")
                    .weight("weight", {options.proposals, options.neck.channels}, init::normal(1));
    const Scope stages = root.child("roi_head").child("bbox_head");
    for (int64_t s = 0; s < options.stages; ++s)
      stages_.emplace_back(stages.child(str(s)), options.head);
  }

  Losses losses_of(const FeatureMaps& levels, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const Truth truth = truth_of(images, targets);
    const Tensor sizes = sizes_of(images);
    const std::vector<QueryOutputs> found = refine(levels, sizes);
    const std::vector<QueryTargets> wanted = match_layers(found, truth, sizes, options_.losses);
    show_scores({found.back().logits, wanted.back().labels}, ClassTargets::matched);
    Losses losses;
    for (size_t s = 0; s < found.size(); ++s)
      add_query_losses(losses, str("s", s, "."), found[s], wanted[s], sizes, options_.classes,
                       options_.losses);
    return losses;
  }

  PendingDetections predict(const ImageBatch& images) override {
    const Tensor sizes = sizes_of(images);
    const QueryOutputs found = refine(pyramid_of(images), sizes).back();
    return detect_queries(found.logits, found.boxes, sizes, options_.max_per_image);
  }

 private:
  /// What every stage predicts. Boxes are shares of the image, in which they move as they do in
  /// pixels. The learned ones get a gradient from the first stage; where features are taken has
  /// none.
  std::vector<QueryOutputs> refine(const FeatureMaps& levels, const Tensor& sizes) const {
    const int64_t count = sizes.size(0);
    Tensor boxes = for_each_image(boxes_, count, DType::f32);
    Tensor queries = for_each_image(features_, count, levels[0].dtype());
    std::vector<QueryOutputs> found;
    for (const DynamicHead& stage : stages_) {
      const Tensor features = options_.features(levels, query_regions(boxes.detach(), sizes));
      const DynamicHeadOutputs out = stage(queries, features);
      const Tensor moved = centers_from_deltas(out.deltas, boxes, options_.coder);
      found.push_back({out.logits, moved});
      boxes = moved.detach();
      queries = out.queries;
    }
    return found;
  }

  SparseRcnnOptions options_;
  Tensor boxes_, features_;  // f32 [Q, 4] (cx, cy, w, h), [Q, C]
  std::vector<DynamicHead> stages_;
};

}  // namespace

std::unique_ptr<Detector> create_sparse_rcnn(const Options& options, uint64_t seed) {
  return std::make_unique<SparseRcnn>(SparseRcnnOptions(options), seed);
}

}  // namespace mixpl
