// From pictures to the memory that decoders of deformable attention look at: what Deformable DETR
// and DINO have in common.
#pragma once

#include <utility>
#include <vector>

#include "models/backbones/backbone.h"
#include "models/detector.h"
#include "models/necks/channel_mapper.h"
#include "models/transformer/deformable_transformer.h"

namespace mixpl {

struct MemoryEncoderOptions {
  BackboneOptions backbone;
  ChannelMapperOptions neck;
  DeformableTransformerOptions transformer;
  SineOptions positions;  // channels are the neck's

  /// "backbone", "neck", "transformer". @throws ConfigError
  static MemoryEncoderOptions read(const Options& options, const MemoryEncoderOptions& defaults);
};

/// Parameters: level_embed [L, C], encoder.*.
class MemoryEncoder {
 public:
  MemoryEncoder(const Scope& scope, const MemoryEncoderOptions& options);
  /// @param maps that the network made of the images
  Memory operator()(const FeatureMaps& maps, const ImageBatch& images) const;

 private:
  SineOptions positions_;
  Tensor level_embedding_;
  DeformableEncoder encoder_;
};

/// The two-stage part: every token proposes a box, which its memory refines.
/// Parameters: memory_trans_fc.*, memory_trans_norm.*.
class ProposalEncoder {
 public:
  ProposalEncoder() = default;
  ProposalEncoder(const Scope& scope, int64_t channels);
  /// Memory for the prediction heads [N, S, C], zeroed before where nothing is proposed, and the
  /// boxes that they move, as logits f32 [N, S, 4].
  std::pair<Tensor, Tensor> operator()(const Memory& memory) const;

 private:
  Linear linear_;
  LayerNorm norm_;
};

/// Of the maps [N, H, W, C] that a network makes of a batch.
TokenGrid grid_of(const std::vector<Tensor>& maps, const ImageBatch& images);
/// Rows of a [N, S, K] in f32, as [N, count, K]. @param rows see best_tokens
Tensor rows_of(const Tensor& x, const Tensor& rows);
/// A learned [T, C] for every image: dtype [N, T, C], on the tape.
Tensor for_each_image(const Tensor& table, int64_t images, DType dtype);

}  // namespace mixpl
