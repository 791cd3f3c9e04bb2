#include "models/transformer/deformable_transformer.h"

#include "ops/add/add.h"

namespace mixpl {

DeformableTransformerOptions DeformableTransformerOptions::read(
    const Options& options, const DeformableTransformerOptions& defaults, int64_t channels) {
  DeformableTransformerOptions out = defaults;
  out.heads = options.integer("heads", out.heads);
  out.points = options.integer("points", out.points);
  out.encoder_layers = static_cast<int>(options.integer("encoderLayers", out.encoder_layers));
  out.decoder_layers = static_cast<int>(options.integer("decoderLayers", out.decoder_layers));
  out.ffn_channels = options.integer("ffnChannels", out.ffn_channels);
  out.dropout = static_cast<float>(options.number("dropout", out.dropout));
  options.finish();
  const auto within = [](const char* name, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      throw ConfigError(
          str("transformer.", name, " must be in [", low, ", ", high, "], got ", value));
  };
  within("heads", out.heads, 1, 64);
  within("points", out.points, 1, 16);
  within("encoderLayers", out.encoder_layers, 0, 64);
  within("decoderLayers", out.decoder_layers, 1, 64);
  within("ffnChannels", out.ffn_channels, 1, 1 << 16);
  if (channels % out.heads)
    throw ConfigError(str("transformer.heads must divide neck.channels (", channels, "), got ",
                          out.heads));
  if (!(out.dropout >= 0 && out.dropout < 1))
    throw ConfigError(str("transformer.dropout must be in [0, 1), got ", out.dropout));
  return out;
}

namespace {
// Places of dropout: encoder layers, then decoder layers, four each.
uint64_t place_of(int layer, int part) { return static_cast<uint64_t>(layer) * 4 + part; }
}  // namespace

DeformableEncoder::DeformableEncoder(const Scope& scope, int64_t channels, int64_t levels,
                                     const DeformableTransformerOptions& options) {
  for (int i = 0; i < options.encoder_layers; ++i) {
    const Scope at = scope.child(str("layers.", i));
    Layer layer;
    layer.self_attention =
        DeformableAttention(at.child("self_attn"), channels, options.heads, levels, options.points);
    layer.ffn = FeedForward(at.child("ffn"), channels, options.ffn_channels, Activation::relu);
    for (int k = 0; k < 2; ++k) {
      layer.norms[k] = LayerNorm(at, str("norms.", k), channels);
      layer.dropouts[k] = Dropout(options.dropout, place_of(i, k));
    }
    layers_.push_back(std::move(layer));
  }
}

void DeformableEncoder::operator()(Memory& memory, const Tensor& positions) const {
  if (layers_.empty()) return;
  const TokenGrid& grid = memory.grid;
  const Tensor references = token_references(grid);
  for (const Layer& layer : layers_) {
    Tensor& x = memory.tokens;
    x = layer.norms[0](layer.dropouts[0](layer.self_attention(
                           add(x, positions), x, memory.padding, grid.maps, references, grid.ratios)),
                       x);
    x = layer.norms[1](layer.dropouts[1](layer.ffn(x)), x);
  }
}

DeformableDecoderLayer::DeformableDecoderLayer(const Scope& scope, int64_t channels, int64_t levels,
                                               int index,
                                               const DeformableTransformerOptions& options)
    : self_attention_(scope.child("self_attn"), channels, options.heads),
      cross_attention_(scope.child("cross_attn"), channels, options.heads, levels, options.points),
      ffn_(scope.child("ffn"), channels, options.ffn_channels, Activation::relu) {
  for (int k = 0; k < 3; ++k) {
    norms_[k] = LayerNorm(scope, str("norms.", k), channels);
    dropouts_[k] = Dropout(options.dropout, place_of(options.encoder_layers + index, k));
  }
}

Tensor DeformableDecoderLayer::operator()(const Tensor& queries, const Tensor& positions,
                                          const Memory& memory, const Tensor& references,
                                          const Tensor& mask) const {
  const TokenGrid& grid = memory.grid;
  Tensor x = queries;
  const Tensor placed = add(x, positions);
  x = norms_[0](dropouts_[0](self_attention_(placed, placed, x, mask)), x);
  x = norms_[1](dropouts_[1](cross_attention_(add(x, positions), memory.tokens, memory.padding,
                                              grid.maps, references, grid.ratios)),
                x);
  return norms_[2](dropouts_[2](ffn_(x)), x);
}

}  // namespace mixpl
