// A head that looks at the region of every query by a filter that the query makes (Sun et al. 2021,
// arXiv:2011.12450). Names as mmdetection's DIIHead.
#pragma once

#include <vector>

#include "core/options.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/multihead_attention.h"

namespace mixpl {

struct DynamicHeadOptions {
  int64_t classes = 80, channels = 256;
  int size = 7;  // bins of a region's side
  int64_t heads = 8;
  int64_t dynamic_channels = 64;  // between the two products of a dynamic convolution
  int64_t ffn_channels = 2048;
  int class_layers = 1, box_layers = 3;  // before the outputs

  /// { heads, dynamicChannels, ffnChannels, classLayers, boxLayers }; does not finish `options`.
  /// @throws ConfigError
  static DynamicHeadOptions read(const Options& options, const DynamicHeadOptions& defaults);
};

/// Two 1x1 convolutions of a region's features, whose filters the query says, then one number a
/// channel. Parameters: dynamic_layer, norm_in, norm_out, fc_layer, fc_norm.
class DynamicConv {
 public:
  DynamicConv() = default;
  DynamicConv(const Scope& scope, const DynamicHeadOptions& options);

  /// @param queries  [R, C]
  /// @param features [R, size, size, C]
  /// @return         [R, C]
  Tensor operator()(const Tensor& queries, const Tensor& features) const;

 private:
  Tensor weight_, bias_;  // of both filters
  LayerNorm norm_in_, norm_out_, last_norm_;
  Linear last_;
  int64_t channels_ = 0, inner_ = 0;
};

/// Predictions for the queries, and what becomes of these.
struct DynamicHeadOutputs {
  Tensor logits;   // [N, Q, K]
  Tensor deltas;   // [N, Q, 4], see centers_from_deltas
  Tensor queries;  // [N, Q, C]
};

/// One stage. Parameters: attention.attn.*, attention_norm, instance_interactive_conv.*,
/// instance_interactive_conv_norm, ffn.*, ffn_norm, cls_fcs.<3 i>.weight, cls_fcs.<3 i + 1>.*,
/// reg_fcs.*, fc_cls, fc_reg.
class DynamicHead {
 public:
  DynamicHead(const Scope& scope, const DynamicHeadOptions& options);

  /// @param queries  [N, Q, C]
  /// @param features [N Q, size, size, C] of their regions
  DynamicHeadOutputs operator()(const Tensor& queries, const Tensor& features) const;

 private:
  /// relu(norm(x weight^T)). Parameters: <first>.weight, <first + 1>.{weight, bias}.
  struct NormedLayer {
    NormedLayer(const Scope& scope, int first, int64_t channels);
    Tensor operator()(const Tensor& x) const;

    Tensor weight;
    LayerNorm norm;
  };

  MultiheadAttention attention_;
  DynamicConv conv_;
  FeedForward ffn_;
  LayerNorm attention_norm_, conv_norm_, ffn_norm_;
  std::vector<NormedLayer> class_layers_, box_layers_;
  Linear classes_, boxes_;
};

}  // namespace mixpl
