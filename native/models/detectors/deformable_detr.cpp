// Deformable DETR (Zhu et al. 2021, arXiv:2010.04159) with mmdetection's choices: as it is, with
// boxes refined layer by layer, or with queries that start at the encoder's proposals.
#include "detect/queries.h"
#include "models/detectors/detectors.h"
#include "models/heads/query_head.h"
#include "models/pyramid_detector.h"
#include "models/transformer/memory_encoder.h"
#include "ops/add/add.h"
#include "ops/refined_boxes/refined_boxes.h"
#include "ops/reshape/reshape.h"
#include "ops/sigmoid/sigmoid.h"
#include "ops/tokens/tokens.h"

namespace mixpl {
namespace {

struct DeformableDetrOptions {
  int64_t classes;
  MemoryEncoderOptions encoder;
  int64_t queries = 300;
  bool refine = true;     // each layer moves the boxes of the one before
  bool two_stage = true;  // queries start at the best tokens' boxes
  QueryLossOptions losses;
  int64_t max_per_image = 100;

  explicit DeformableDetrOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    encoder.positions.offset = -0.5f;
    encoder.transformer.ffn_channels = 1024;
    encoder.transformer.dropout = 0.1f;
    encoder = MemoryEncoderOptions::read(o, encoder);
    queries = read_count(o, "", "queries", queries);
    refine = o.boolean("refine", refine);
    two_stage = o.boolean("twoStage", two_stage);
    if (two_stage && !refine)
      throw ConfigError("model.twoStage needs model.refine: boxes of proposals are refined");
    losses = QueryLossOptions::read(o.object("train"), losses);
    const Options t = o.object("test");
    max_per_image = read_count(t, "test.", "maxPerImage", max_per_image);
    t.finish();
  }
};

class DeformableDetr final : public MapperDetector {
 public:
  DeformableDetr(const DeformableDetrOptions& options, uint64_t seed)
      : MapperDetector(seed, options.classes, options.encoder.backbone, options.encoder.neck),
        options_(options),
        channels_(options.encoder.neck.channels),
        encoder_(root(seed), options.encoder) {
    const Scope root(parameters_, seed);
    const DeformableTransformerOptions& t = options.encoder.transformer;
    for (int i = 0; i < t.decoder_layers; ++i)
      layers_.emplace_back(root.child(str("decoder.layers.", i)), channels_,
                           options.encoder.neck.num_outputs, i, t);
    if (options.two_stage) {
      proposals_ = ProposalEncoder(root, channels_);
      start_ = Linear(root, "pos_trans_fc", 2 * channels_, 2 * channels_, init::xavier_uniform());
      start_norm_ = LayerNorm(root, "pos_trans_norm", 2 * channels_);
    } else {
      queries_ = root.child("query_embedding")
                     .weight("weight", {options.queries, 2 * channels_}, init::normal(1));
      start_ = Linear(root, "reference_points_fc", channels_, 2, init::xavier_uniform());
    }
    QueryHeadSpec head;
    head.channels = channels_;
    head.classes = options.classes;
    head.layers = t.decoder_layers + (options.two_stage ? 1 : 0);
    head.shared = !options.refine;
    head.size_bias = options.two_stage ? 0 : -2;
    head_ = QueryHead(root.child("bbox_head"), head);
  }

  Losses losses_of(const FeatureMaps& levels, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const Truth truth = truth_of(images, targets);
    const Tensor sizes = sizes_of(images);
    const Memory memory = encoder_(levels, images);
    const Start start = start_of(memory);
    const std::vector<QueryOutputs> found = decode(memory, start, true);
    Losses losses;
    add_layer_losses(losses, "", found, match_layers(found, truth, sizes, options_.losses), sizes,
                     options_.classes, options_.losses);
    if (options_.two_stage) {
      // Every token learns whether it sees an object, of whatever class, which class 0 stands for.
      Truth objects = truth;
      objects.labels = Tensor::zeros(truth.labels.shape(), DType::i32, truth.device());
      const QueryTargets wanted =
          match_layers({start.proposed}, objects, sizes, options_.losses)[0];
      add_query_losses(losses, "enc_", start.proposed, wanted, sizes, options_.classes,
                       options_.losses);
    }
    return losses;
  }

  PendingDetections predict(const ImageBatch& images) override {
    const Memory memory = encoder_(pyramid_of(images), images);
    const QueryOutputs found = decode(memory, start_of(memory), false).back();
    return detect_queries(found.logits, found.boxes, sizes_of(images), options_.max_per_image);
  }

 private:
  struct Start {
    Tensor queries, positions;  // [N, Q, C]
    Tensor references;          // f32 [N, Q, 2 | 4]
    QueryOutputs proposed;      // two stages: by all tokens
  };

  Start start_of(const Memory& memory) const {
    const int64_t images = memory.grid.images;
    const DType dtype = memory.tokens.dtype();
    Start start;
    if (!options_.two_stage) {
      const int64_t count = queries_.size(0);
      // [Q, (position, content), C]
      const Tensor halves = reshape(queries_, {count, 2, channels_});
      const auto half = [&](int64_t which) {
        return reshape(take_tokens(halves, which, 1), {count, channels_});
      };
      const Tensor positions = half(0);
      start.positions = for_each_image(positions, images, dtype);
      start.queries = for_each_image(half(1), images, dtype);
      start.references = for_each_image(sigmoid(start_(positions)), images, DType::f32);
      return start;
    }
    const int last = static_cast<int>(layers_.size());
    const auto [tokens, places] = proposals_(memory);
    const Tensor logits = head_.logits(last, tokens);
    const Tensor boxes = refined_boxes(head_.deltas(last, tokens), places, 0);
    start.proposed = {logits, boxes};
    const int64_t count = std::min(options_.queries, memory.grid.tokens());
    start.references = rows_of(boxes.detach(), best_tokens(logits, count, 0)).detach();
    const Tensor encoded =
        coordinate_encoding(start.references, channels_ / 2, CoordinateOrder::xywh, dtype);
    const Tensor halves = reshape(start_norm_(start_(encoded)), {images * count, 2, channels_});
    const auto half = [&](int64_t which) {
      return reshape(take_tokens(halves, which, 1), {images, count, channels_});
    };
    start.positions = half(0);
    start.queries = half(1);
    return start;
  }

  /// Predictions of every layer, or of the last alone.
  std::vector<QueryOutputs> decode(const Memory& memory, const Start& start, bool every) const {
    constexpr float kEps = 1e-5f;
    Tensor x = start.queries, references = start.references;
    std::vector<QueryOutputs> found;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const int layer = static_cast<int>(i);
      const bool last = i + 1 == layers_.size();
      x = layers_[i](x, start.positions, memory, references, {});
      Tensor boxes;
      if (every || last || options_.refine)
        boxes = refined_boxes(head_.deltas(layer, x), references, kEps);
      if (every || last) found.push_back({head_.logits(layer, x), boxes});
      if (options_.refine) references = boxes.detach();
    }
    return found;
  }

  DeformableDetrOptions options_;
  int64_t channels_;
  MemoryEncoder encoder_;
  std::vector<DeformableDecoderLayer> layers_;
  ProposalEncoder proposals_;
  Tensor queries_;
  Linear start_;
  LayerNorm start_norm_;
  QueryHead head_;
};

}  // namespace

std::unique_ptr<Detector> create_deformable_detr(const Options& options, uint64_t seed) {
  return std::make_unique<DeformableDetr>(DeformableDetrOptions(options), seed);
}

}  // namespace mixpl
