// DINO (Zhang et al. 2023, arXiv:2203.03605) with mmdetection's choices: queries start at the boxes
// of the best tokens, learn to undo noise on the side, and each layer's boxes are corrected by two.
#include "detect/queries.h"
#include "models/detectors/detectors.h"
#include "models/heads/query_head.h"
#include "models/pyramid_detector.h"
#include "models/transformer/memory_encoder.h"
#include "nn/mlp.h"
#include "ops/embedding/embedding.h"
#include "ops/refined_boxes/refined_boxes.h"
#include "ops/tokens/tokens.h"

namespace mixpl {
namespace {

struct DinoOptions {
  int64_t classes;
  MemoryEncoderOptions encoder;
  int64_t queries = 900;
  DenoisingOptions denoising;
  QueryLossOptions losses;
  int64_t max_per_image = 300;

  explicit DinoOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    encoder.positions.temperature = 20;
    encoder = MemoryEncoderOptions::read(o, encoder);
    queries = read_count(o, "", "queries", queries);

    const Options d = o.object("denoising");
    denoising.queries = d.integer("queries", denoising.queries);
    denoising.label_noise = static_cast<float>(d.number("labelNoise", denoising.label_noise));
    denoising.box_noise = static_cast<float>(d.number("boxNoise", denoising.box_noise));
    d.finish();
    if (denoising.queries < 0 || denoising.queries > 4096)
      throw ConfigError(str("denoising.queries must be in [0, 4096], got ", denoising.queries));
    if (!(denoising.label_noise >= 0 && denoising.label_noise <= 1))
      throw ConfigError(str("denoising.labelNoise must be in [0, 1], got ", denoising.label_noise));
    if (!(denoising.box_noise >= 0 && denoising.box_noise <= 10))
      throw ConfigError(str("denoising.boxNoise must be in [0, 10], got ", denoising.box_noise));

    losses.classification = 1;
    losses = QueryLossOptions::read(o.object("train"), losses);
    const Options t = o.object("test");
    max_per_image = read_count(t, "test.", "maxPerImage", max_per_image);
    t.finish();
  }
};

class Dino final : public MapperDetector {
 public:
  Dino(const DinoOptions& options, uint64_t seed)
      : MapperDetector(seed, options.classes, options.encoder.backbone, options.encoder.neck),
        options_(options),
        channels_(options.encoder.neck.channels),
        encoder_(root(seed), options.encoder) {
    const Scope root(parameters_, seed), decoder = root.child("decoder");
    const DeformableTransformerOptions& t = options.encoder.transformer;
    proposals_ = ProposalEncoder(root, channels_);
    // As mmdetection's DINO.init_weights: 24 times smaller than torch fills a table of 900 by 256.
    queries_ = root.child("query_embedding")
                   .weight("weight", {options.queries, channels_}, init::xavier_uniform());
    // Without noisy queries it is there all the same: checkpoints have it.
    labels_ = root.child("dn_query_generator.label_embedding")
                  .weight("weight", {options.classes, channels_}, init::normal(1));
    for (int i = 0; i < t.decoder_layers; ++i)
      layers_.emplace_back(decoder.child(str("layers.", i)), channels_,
                           options.encoder.neck.num_outputs, i, t);
    positions_ = Mlp(decoder, "ref_point_head", 2 * channels_, channels_, channels_, 2,
                     init::xavier_uniform());
    norm_ = LayerNorm(decoder, "norm", channels_);
    QueryHeadSpec head;
    head.channels = channels_;
    head.classes = options.classes;
    head.layers = t.decoder_layers + 1;
    head_ = QueryHead(root.child("bbox_head"), head);
  }

  Losses losses_of(const FeatureMaps& levels, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const Truth truth = truth_of(images, targets);
    const Tensor sizes = sizes_of(images);
    const Memory memory = encoder_(levels, images);
    Start start = start_of(memory);

    DenoisingQueries noisy;
    if (options_.denoising.queries > 0)
      noisy = denoising_queries(truth, sizes, options_.classes, options_.denoising,
                                Context::current().random);
    const int64_t extra = noisy.count();
    if (extra > 0) {
      start.queries =
          concat_tokens({embedding(labels_, noisy.labels, start.queries.dtype()), start.queries});
      start.references = concat_tokens({noisy.references, start.references});
    }
    const Tensor mask = denoising_mask(noisy, start.count, images.pixels.device());
    std::vector<QueryOutputs> found = decode(memory, start, mask, true), of_noise;
    if (extra > 0)
      for (QueryOutputs& layer : found) {
        of_noise.push_back(part_of(layer, 0, extra));
        layer = part_of(layer, extra, start.count);
      }

    Losses losses;
    add_layer_losses(losses, "", found, match_layers(found, truth, sizes, options_.losses), sizes,
                     options_.classes, options_.losses);
    add_query_losses(losses, "enc_", start.proposed,
                     match_layers({start.proposed}, truth, sizes, options_.losses)[0], sizes,
                     options_.classes, options_.losses);
    if (extra > 0)
      add_layer_losses(losses, "dn_", of_noise,
                       std::vector<QueryTargets>(of_noise.size(), noisy.targets), sizes,
                       options_.classes, options_.losses);
    else if (options_.denoising.queries > 0)
      add_no_losses(losses, "dn_", layers_.size());
    return losses;
  }

  PendingDetections predict(const ImageBatch& images) override {
    const Memory memory = encoder_(pyramid_of(images), images);
    const QueryOutputs found = decode(memory, start_of(memory), {}, false).back();
    return detect_queries(found.logits, found.boxes, sizes_of(images), options_.max_per_image);
  }

 private:
  struct Start {
    int64_t count = 0;      // of matching queries: all there are, or one a token
    Tensor queries;         // [N, Q, C]
    Tensor references;      // f32 [N, Q, 4], constant
    QueryOutputs proposed;  // by the tokens that the queries start from
  };

  Start start_of(const Memory& memory) const {
    const int last = static_cast<int>(layers_.size());
    const auto [tokens, places] = proposals_(memory);
    const Tensor logits = head_.logits(last, tokens);
    const Tensor boxes = refined_boxes(head_.deltas(last, tokens), places, 0);
    Start start;
    start.count = std::min(options_.queries, memory.grid.tokens());
    const Tensor best = best_tokens(logits, start.count);
    start.proposed = {rows_of(logits, best), rows_of(boxes, best)};
    start.references = start.proposed.boxes.detach();
    start.queries = for_each_image(queries_, memory.grid.images, memory.tokens.dtype());
    if (start.count < options_.queries) start.queries = take_tokens(start.queries, 0, start.count);
    return start;
  }

  /// Predictions of every layer, or of the last alone.
  std::vector<QueryOutputs> decode(const Memory& memory, const Start& start, const Tensor& mask,
                                   bool every) const {
    constexpr float kEps = 1e-3f, kHeadEps = 1e-5f;
    Tensor x = start.queries, references = start.references, before = references;
    std::vector<QueryOutputs> found;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const int layer = static_cast<int>(i);
      const bool last = i + 1 == layers_.size();
      const Tensor encoded = coordinate_encoding(references, channels_ / 2, CoordinateOrder::yxwh,
                                                 x.dtype(), memory.grid.ratios);
      x = layers_[i](x, positions_(encoded), memory, references, mask);
      // The head moves what the layer before found, with the gradient of both: look forward twice.
      if (every || last) {
        const Tensor hidden = norm_(x);
        found.push_back({head_.logits(layer, hidden),
                         refined_boxes(head_.deltas(layer, hidden), before, kHeadEps)});
      }
      if (last) break;
      before = refined_boxes(head_.deltas(layer, x), references, kEps);
      references = before.detach();
    }
    return found;
  }

  static QueryOutputs part_of(const QueryOutputs& all, int64_t first, int64_t count) {
    return {take_tokens(all.logits, first, count), take_tokens(all.boxes, first, count)};
  }

  DinoOptions options_;
  int64_t channels_;
  MemoryEncoder encoder_;
  ProposalEncoder proposals_;
  Tensor queries_, labels_;
  std::vector<DeformableDecoderLayer> layers_;
  Mlp positions_;
  LayerNorm norm_;
  QueryHead head_;
};

}  // namespace

std::unique_ptr<Detector> create_dino(const Options& options, uint64_t seed) {
  return std::make_unique<Dino>(DinoOptions(options), seed);
}

}  // namespace mixpl
