// Swin Transformer (Liu et al. 2021, arXiv:2103.14030), C2 … C5. Names, padding and freezing follow
// mmdetection.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/options.h"
#include "models/feature_maps.h"
#include "nn/dropout.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "ops/windows/windows.h"

namespace mixpl {

struct SwinOptions {
  int64_t embed = 96;  // channels of C2, doubled at every level
  std::array<int64_t, 4> depths = {2, 2, 6, 2};
  std::array<int64_t, 4> heads = {3, 6, 12, 24};
  int64_t window = 7;  // cells of a side
  // Share of samples that a block's last part leaves as they are, in the last block; 0 in the first
  // and linear between them.
  float drop_path = 0.2f;
  int frozen_stages = -1;  // -1 none, 0 the patch embedding, n it and stages 1 … n
  // In training, keeps the outputs of blocks alone: the backward pass computes the rest again. A
  // third more work in the backbone.
  bool recompute = false;

  /// { type: 'swin', size: 'tiny' | 'small' | 'base' | 'large', embed, depths, heads, window,
  /// dropPath, frozenStages, recompute }. @throws ConfigError
  static SwinOptions read(const Options& options);
};

class Swin {
 public:
  /// Parameters: patch_embed.{projection, norm}, stages.<s>.blocks.<b>.{norm1, attn.w_msa, norm2,
  /// ffn}, stages.<s>.downsample.{norm, reduction}, norm<s>. Those of patch merging are in the
  /// order of ops/patches, not in mmdetection's.
  /// @param first_level of those that are used, 2 … 5: lower ones have no norm and come out
  /// undefined
  Swin(const Scope& scope, const SwinOptions& options, int first_level);

  /// x [N, H, W, 3] -> C2 … C5, strides 4, 8, 16, 32; sizes are rounded up.
  FeatureMaps operator()(const Tensor& x) const;
  /// Channels of C2 … C5.
  const std::vector<int64_t>& channels() const { return channels_; }

 private:
  struct Block {
    LayerNorm norm1, norm2;
    Linear qkv, projection;
    Tensor bias_table;
    FeedForward ffn;
    DropPath drop_path;
    int64_t heads = 0;
    WindowOptions windows;

    /// @param mask of the shifted windows, or undefined
    Tensor operator()(const Tensor& x, const Tensor& mask) const;

   private:
    Tensor attend(const Tensor& x, const Tensor& mask) const;
  };
  /// Pairs of rows and columns into cells of twice the channels.
  struct Merging {
    LayerNorm norm;
    Tensor reduction;
  };
  struct Stage {
    std::vector<Block> blocks;
    Merging merging;  // not in the last
    LayerNorm norm;   // of the output
  };
  Block make_block(const Scope& scope, const SwinOptions& options, int stage, int block) const;

  Tensor embed_weight_, embed_bias_;
  LayerNorm embed_norm_;
  std::vector<Stage> stages_;
  std::vector<int64_t> channels_;
  int first_level_;
  bool recompute_;
};

}  // namespace mixpl
