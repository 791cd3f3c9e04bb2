#include "models/transformer/conditional_transformer.h"

#include "ops/add_product/add_product.h"

namespace mixpl {
namespace {

// Of dropout: encoder layers, then decoder layers.
constexpr uint64_t kPlacesOfALayer = 4;

}  // namespace

ScaledPositionEncoder::ScaledPositionEncoder(const Scope& scope, int64_t channels,
                                             const TransformerOptions& options) {
  for (int i = 0; i < options.encoder_layers; ++i) {
    const Scope at = scope.child(str("layers.", i));
    Layer layer;
    layer.self_attention =
        MultiheadAttention(at, "self_attn", channels, options.heads, init::xavier_uniform());
    layer.ffn = FeedForward(at, "ffn", channels, options.ffn_channels, Activation::prelu);
    for (int k = 0; k < 2; ++k) layer.norms[k] = LayerNorm(at, str("norms.", k), channels);
    layer.dropout = Dropout(options.dropout, i * kPlacesOfALayer);
    layers_.push_back(std::move(layer));
  }
  position_scale_ =
      Mlp(scope, "query_scale", channels, channels, channels, 2, init::xavier_uniform());
}

Tensor ScaledPositionEncoder::operator()(const Tensor& tokens, const Tensor& positions,
                                         const Tensor& mask) const {
  Tensor x = tokens;
  for (const Layer& layer : layers_) {
    const Tensor placed = add_product(x, position_scale_(x), positions);
    x = layer.norms[0](layer.dropout(layer.self_attention(placed, placed, x, mask)), x);
    x = layer.norms[1](layer.ffn(x, layer.dropout.p(), layer.dropout.random(1)), x);
  }
  return x;
}

ConditionalDecoderLayer::ConditionalDecoderLayer(const Scope& scope, int64_t channels, int index,
                                                 const TransformerOptions& options)
    : self_attention_(scope, "self_attn", channels, options.heads),
      cross_attention_(scope, "cross_attn", channels, options.heads, index == 0),
      ffn_(scope, "ffn", channels, options.ffn_channels, Activation::prelu),
      dropout_(options.dropout, (options.encoder_layers + index) * kPlacesOfALayer) {
  for (int k = 0; k < 3; ++k) norms_[k] = LayerNorm(scope, str("norms.", k), channels);
}

Tensor ConditionalDecoderLayer::operator()(const Tensor& queries, const Tensor& positions,
                                           const Tensor& encoding,
                                           const AttentionKeys& memory) const {
  Tensor x = queries;
  x = norms_[0](dropout_(self_attention_(x, positions)), x);
  x = norms_[1](dropout_(cross_attention_(x, positions, encoding, memory), 1), x);
  return norms_[2](ffn_(x, dropout_.p(), dropout_.random(2)), x);
}

}  // namespace mixpl
