// DAB-DETR (Liu et al. 2022, arXiv:2201.12329) with mmdetection's choices: queries are boxes,
// learned and then moved by each layer; their encodings say where on C5 they look, and how wide.
#include <cmath>

#include "detect/queries.h"
#include "detect/token_grid.h"
#include "models/detectors/detectors.h"
#include "models/heads/query_head.h"
#include "models/pyramid_detector.h"
#include "models/transformer/conditional_transformer.h"
#include "models/transformer/memory_encoder.h"
#include "ops/modulated_encoding/modulated_encoding.h"
#include "ops/refined_boxes/refined_boxes.h"
#include "ops/sigmoid/sigmoid.h"
#include "ops/tokens/tokens.h"

namespace mixpl {
namespace {

struct DabDetrOptions {
  int64_t classes;
  BackboneOptions backbone;
  ChannelMapperOptions neck;
  TransformerOptions transformer;
  SineOptions positions;
  int64_t queries = 300;
  QueryLossOptions losses;
  int64_t max_per_image = 300;

  explicit DabDetrOptions(const Options& o) : classes(read_num_classes(o)) {
    read_mmdetection_numerics(o);
    backbone = BackboneOptions::read(o.object("backbone"));
    neck.first_level = 5;
    neck.num_outputs = 1;
    neck.norm = NormKind::none;
    neck = ChannelMapperOptions::read(o.object("neck"), neck);
    if (neck.first_level != 5 || neck.num_outputs != 1)
      throw ConfigError("neck must have one output, of C5 (firstLevel 5, numOutputs 1)");
    if (neck.channels % 4)
      throw ConfigError(str("neck.channels must be a multiple of 4, got ", neck.channels));
    transformer = TransformerOptions::read(o.object("transformer"), transformer, neck.channels);
    positions.channels = neck.channels;
    positions.temperature = 20;
    queries = read_count(o, "", "queries", queries);
    losses.classification = 1;
    losses.matching.eps = 1e-8f;
    losses = QueryLossOptions::read(o.object("train"), losses);
    const Options t = o.object("test");
    max_per_image = read_count(t, "test.", "maxPerImage", max_per_image);
    t.finish();
  }
};

class DabDetr final : public MapperDetector {
 public:
  DabDetr(const DabDetrOptions& options, uint64_t seed)
      : MapperDetector(seed, options.classes, options.backbone, options.neck),
        options_(options),
        channels_(options.neck.channels),
        encoder_(root(seed).child("encoder"), channels_, options.transformer) {
    const Scope root(parameters_, seed), decoder = root.child("decoder"),
                                         head = root.child("bbox_head");
    const int64_t c = channels_;
    for (int i = 0; i < options.transformer.decoder_layers; ++i)
      layers_.emplace_back(decoder.child(str("layers.", i)), c, i, options.transformer);
    norm_ = LayerNorm(decoder, "post_norm", c);
    const Init xavier = init::xavier_uniform();
    encoding_scale_ = Mlp(decoder, "query_scale", c, c, c, 2, xavier);
    positions_ = Mlp(decoder, "ref_point_head", 2 * c, c, c, 2, xavier);
    sizes_ = Mlp(decoder, "ref_anchor_head", c, c, 2, 2, xavier);
    anchors_ =
        root.child("query_embedding").weight("weight", {options.queries, 4}, init::normal(1));
    const float prior = -std::log(99.0f);  // a probability of 0.01
    classes_ = Linear(head, "fc_cls", c, options.classes, init::uniform_fan_in(), {},
                      init::constant(prior));
    boxes_ = Mlp(head, "fc_reg", c, c, 4, 3, init::uniform_fan_in(), true);
  }

  Losses losses_of(const FeatureMaps& levels, const ImageBatch& images,
                   const std::vector<Target>& targets) override {
    const Truth truth = truth_of(images, targets);
    const Tensor sizes = sizes_of(images);
    const std::vector<QueryOutputs> found = decode(memory_of(levels, images), true);
    Losses losses;
    add_layer_losses(losses, "", found, match_layers(found, truth, sizes, options_.losses), sizes,
                     options_.classes, options_.losses);
    return losses;
  }

  PendingDetections predict(const ImageBatch& images) override {
    const QueryOutputs found = decode(memory_of(pyramid_of(images), images), false).back();
    return detect_queries(found.logits, found.boxes, sizes_of(images), options_.max_per_image);
  }

 private:
  AttentionKeys memory_of(const FeatureMaps& maps, const ImageBatch& images) const {
    const Tensor& map = maps[0];
    const TokenGrid grid = grid_of({map}, images);
    const Tensor padding = padding_mask(grid), tokens = concat_tokens({map});
    AttentionKeys memory;
    memory.positions = sine_positions(grid, options_.positions, tokens.dtype());
    if (padding.defined()) memory.mask = padding.alias({grid.images, 1, grid.tokens()});
    memory.content = encoder_(tokens, memory.positions, memory.mask);
    return memory;
  }

  /// Predictions of every layer, or of the last alone.
  std::vector<QueryOutputs> decode(const AttentionKeys& memory, bool every) const {
    constexpr float kEps = 1e-5f, kHeadEps = 1e-3f;
    const int64_t images = memory.content.size(0);
    Tensor x = Tensor::zeros({images, options_.queries, channels_}, memory.content.dtype(),
                             memory.content.device());
    // The first layer's are learned, through their encodings too; later ones are constants.
    Tensor references = sigmoid(for_each_image(anchors_, images, DType::f32)), before = references;
    std::vector<QueryOutputs> found;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const bool last = i + 1 == layers_.size();
      const Tensor encoded =
          coordinate_encoding(references, channels_ / 2, CoordinateOrder::yxwh, x.dtype());
      const Tensor place = modulated_encoding(encoded, sizes_(x), references,
                                              i == 0 ? Tensor() : encoding_scale_(x));
      x = layers_[i](x, positions_(encoded), place, memory);
      // The head moves what the layer before found, with the gradient of both.
      if (every || last) {
        const Tensor hidden = norm_(x);
        found.push_back({classes_(hidden), refined_boxes(boxes_(hidden), before, kHeadEps)});
      }
      if (last) break;
      before = refined_boxes(boxes_(x), references, kEps);
      references = before.detach();
    }
    return found;
  }

  DabDetrOptions options_;
  int64_t channels_;
  ScaledPositionEncoder encoder_;
  std::vector<ConditionalDecoderLayer> layers_;
  LayerNorm norm_;
  Mlp encoding_scale_, positions_, sizes_;
  Tensor anchors_;
  Linear classes_;
  Mlp boxes_;
};

}  // namespace

std::unique_ptr<Detector> create_dab_detr(const Options& options, uint64_t seed) {
  return std::make_unique<DabDetr>(DabDetrOptions(options), seed);
}

}  // namespace mixpl
