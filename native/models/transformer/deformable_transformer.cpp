#include "models/transformer/deformable_transformer.h"

#include "ops/add/add.h"

namespace mixpl {

DeformableTransformerOptions DeformableTransformerOptions::read(
    const Options& options, const DeformableTransformerOptions& defaults, int64_t channels) {
  DeformableTransformerOptions out = defaults;
  out.points = options.integer("points", out.points);
  check_transformer_count("points", out.points, 1, 16);
  static_cast<TransformerOptions&>(out) = TransformerOptions::read(options, defaults, channels);
  return out;
}

namespace {

// Of dropout: encoder layers, then decoder layers.
constexpr uint64_t kPlacesOfALayer = 4;

DeformableAttentionSpec attention_of(int64_t channels, int64_t levels,
                                     const DeformableTransformerOptions& options) {
  return {channels, options.heads, levels, options.points};
}

}  // namespace

DeformableEncoder::DeformableEncoder(const Scope& scope, int64_t channels, int64_t levels,
                                     const DeformableTransformerOptions& options) {
  for (int i = 0; i < options.encoder_layers; ++i) {
    const Scope at = scope.child(str("layers.", i));
    Layer layer;
    layer.self_attention =
        DeformableAttention(at.child("self_attn"), attention_of(channels, levels, options));
    layer.ffn = FeedForward(at, "ffn", channels, options.ffn_channels);
    for (int k = 0; k < 2; ++k) layer.norms[k] = LayerNorm(at, str("norms.", k), channels);
    layer.dropout = Dropout(options.dropout, i * kPlacesOfALayer);
    layers_.push_back(std::move(layer));
  }
}

void DeformableEncoder::operator()(Memory& memory, const Tensor& positions) const {
  if (layers_.empty()) return;
  const TokenGrid& grid = memory.grid;
  const Tensor references = token_references(grid);
  for (const Layer& layer : layers_) {
    Tensor& x = memory.tokens;
    const Tensor seen = layer.self_attention(add(x, positions), x, memory.padding, grid.maps,
                                             references, grid.ratios);
    x = layer.norms[0](layer.dropout(seen), x);
    x = layer.norms[1](layer.ffn(x, layer.dropout.p(), layer.dropout.random(1)), x);
  }
}

DeformableDecoderLayer::DeformableDecoderLayer(const Scope& scope, int64_t channels, int64_t levels,
                                               int index,
                                               const DeformableTransformerOptions& options)
    : self_attention_(scope, "self_attn", channels, options.heads, init::xavier_uniform()),
      cross_attention_(scope.child("cross_attn"), attention_of(channels, levels, options)),
      ffn_(scope, "ffn", channels, options.ffn_channels),
      dropout_(options.dropout, (options.encoder_layers + index) * kPlacesOfALayer) {
  for (int k = 0; k < 3; ++k) norms_[k] = LayerNorm(scope, str("norms.", k), channels);
}

Tensor DeformableDecoderLayer::operator()(const Tensor& queries, const Tensor& positions,
                                          const Memory& memory, const Tensor& references,
                                          const Tensor& mask) const {
  const TokenGrid& grid = memory.grid;
  Tensor x = queries;
  const Tensor placed = add(x, positions);
  x = norms_[0](dropout_(self_attention_(placed, placed, x, mask)), x);
  const Tensor seen = cross_attention_(add(x, positions), memory.tokens, memory.padding, grid.maps,
                                       references, grid.ratios);
  x = norms_[1](dropout_(seen, 1), x);
  return norms_[2](ffn_(x, dropout_.p(), dropout_.random(2)), x);
}

}  // namespace mixpl
