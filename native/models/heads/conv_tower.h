// A stack of 3x3 convolutions, the trunk of a dense head.
#pragma once

#include <string>
#include <vector>

#include "core/options.h"
#include "nn/conv.h"

namespace mixpl {

struct TowerOptions {
  int64_t channels = 256;
  int stacked_convs = 4;
  NormKind norm = NormKind::none;
  bool conv_bias = false;  // a bias in spite of a norm (FCOS)

  /// { channels, stackedConvs, norm } of "head". @throws ConfigError
  static TowerOptions read(const Options& options, const TowerOptions& defaults);
};

/// Parameters: <name>.<i>.conv.{weight, bias}, <name>.<i>.gn.{weight, bias}.
class ConvTower {
 public:
  ConvTower() = default;
  ConvTower(const Scope& scope, const std::string& name, int64_t in, const TowerOptions& options);

  /// Every level [N, H, W, in] -> [N, H, W, channels()]
  std::vector<Tensor> operator()(const std::vector<Tensor>& levels) const;
  int64_t channels() const { return channels_; }

 private:
  std::vector<ConvNorm> layers_;
  int64_t channels_ = 0;
};

}  // namespace mixpl
