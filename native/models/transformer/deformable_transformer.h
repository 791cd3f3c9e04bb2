// Encoder and decoder layers around multi-scale deformable attention (Zhu et al. 2021), as
// mmdetection builds them: each part is followed by a LayerNorm of its sum with what it was given.
#pragma once

#include <vector>

#include "detect/token_grid.h"
#include "models/transformer/transformer_options.h"
#include "nn/deformable_attention.h"
#include "nn/dropout.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "nn/multihead_attention.h"
#include "nn/parameters.h"

namespace mixpl {

struct DeformableTransformerOptions : TransformerOptions {
  int64_t points = 4;

  /// "transformer": as TransformerOptions, and { points }.
  /// @param channels of the tokens. @throws ConfigError
  static DeformableTransformerOptions read(const Options& options,
                                           const DeformableTransformerOptions& defaults,
                                           int64_t channels);
};

/// A pyramid as tokens, with all that attention to it needs.
struct Memory {
  Tensor tokens;  // [N, S, C]
  TokenGrid grid;
  Tensor padding;  // see padding_mask
};

/// Parameters: layers.<i>.{self_attn.*, norms.{0,1}.*, ffn.*}.
class DeformableEncoder {
 public:
  DeformableEncoder(const Scope& scope, int64_t channels, int64_t levels,
                    const DeformableTransformerOptions& options);
  /// @param memory its tokens [N, S, C] are replaced
  /// @param positions [N, S, C], added to queries
  void operator()(Memory& memory, const Tensor& positions) const;

 private:
  struct Layer {
    DeformableAttention self_attention;
    FeedForward ffn;
    LayerNorm norms[2];
    Dropout dropout;
  };
  std::vector<Layer> layers_;
};

/// One layer of a decoder. Parameters: {self_attn.*, cross_attn.*, ffn.*, norms.{0,1,2}.*}.
class DeformableDecoderLayer {
 public:
  /// @param index of the layer
  DeformableDecoderLayer(const Scope& scope, int64_t channels, int64_t levels, int index,
                         const DeformableTransformerOptions& options);
  /// @param queries    [N, Q, C]
  /// @param positions  [N, Q, C]
  /// @param references f32 [N, Q, 2 | 4], shares of the picture
  /// @param mask       u8 [1, Q, Q]: 1 where a query must not see another; or undefined
  /// @return           [N, Q, C]
  Tensor operator()(const Tensor& queries, const Tensor& positions, const Memory& memory,
                    const Tensor& references, const Tensor& mask) const;

 private:
  MultiheadAttention self_attention_;
  DeformableAttention cross_attention_;
  FeedForward ffn_;
  LayerNorm norms_[3];
  Dropout dropout_;
};

}  // namespace mixpl
