// The encoder and the layers of the decoder of DAB-DETR (Liu et al. 2022, arXiv:2201.12329), as
// mmdetection builds them: attention to all tokens of one map, each part followed by a LayerNorm of
// its sum with what it was given.
#pragma once

#include <vector>

#include "models/transformer/transformer_options.h"
#include "nn/conditional_attention.h"
#include "nn/dropout.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "nn/mlp.h"
#include "nn/multihead_attention.h"
#include "nn/parameters.h"

namespace mixpl {

/// Tokens that see each other; how far their positions count is a matter of their content, and of
/// each layer. Parameters: layers.<i>.{self_attn.*, norms.{0,1}.*, ffn.*}, query_scale.*.
class ScaledPositionEncoder {
 public:
  ScaledPositionEncoder(const Scope& scope, int64_t channels, const TransformerOptions& options);
  /// @param tokens    [N, S, C]
  /// @param positions [N, S, C]
  /// @param mask      u8 [N, 1, S]: 1 where a token is padding; or undefined
  /// @return          [N, S, C]
  Tensor operator()(const Tensor& tokens, const Tensor& positions, const Tensor& mask) const;

 private:
  struct Layer {
    MultiheadAttention self_attention;
    FeedForward ffn;
    LayerNorm norms[2];
    Dropout dropout;
  };
  std::vector<Layer> layers_;
  Mlp position_scale_;
};

/// One layer of a decoder. Parameters: {self_attn.*, cross_attn.*, ffn.*, norms.{0,1,2}.*}.
class ConditionalDecoderLayer {
 public:
  /// @param index of the layer
  ConditionalDecoderLayer(const Scope& scope, int64_t channels, int index,
                          const TransformerOptions& options);
  /// @param queries   [N, Q, C]
  /// @param positions [N, Q, C], for self-attention
  /// @param encoding  [N, Q, C], for cross-attention: see modulated_encoding
  /// @return          [N, Q, C]
  Tensor operator()(const Tensor& queries, const Tensor& positions, const Tensor& encoding,
                    const AttentionKeys& memory) const;

 private:
  ConditionalSelfAttention self_attention_;
  ConditionalCrossAttention cross_attention_;
  FeedForward ffn_;
  LayerNorm norms_[3];
  Dropout dropout_;
};

}  // namespace mixpl
