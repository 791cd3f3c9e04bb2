// The network under every detector: a choice of several.
#pragma once

#include <variant>
#include <vector>

#include "models/backbones/resnet.h"
#include "models/backbones/swin.h"

namespace mixpl {

struct BackboneOptions {
  std::variant<ResNetOptions, SwinOptions> network;

  /// { type: 'resnet' | 'swin', ... }, a ResNet when absent. @throws ConfigError
  static BackboneOptions read(const Options& options);
  /// See ResNetOptions; a Swin Transformer has no statistics.
  void set_freeze_statistics(bool on);
};

class Backbone {
 public:
  /// @param first_level of those that are used, 2 … 5; lower ones may come out undefined
  Backbone(const Scope& scope, const BackboneOptions& options, int first_level);

  /// Batches [N, H, W, 3] of one type -> C2 … C5 of each, strides 4, 8, 16, 32. Batch i is that of
  /// pass i of the context, whose random numbers it draws.
  std::vector<FeatureMaps> operator()(const std::vector<Tensor>& batches) const;
  /// Channels of C2 … C5.
  const std::vector<int64_t>& channels() const;

 private:
  std::variant<ResNet, Swin> network_;
};

}  // namespace mixpl
