// The neck of Deformable DETR, DAB-DETR and DINO: maps of one width each, without a top-down path;
// names as mmdetection's ChannelMapper.
#pragma once

#include <vector>

#include "core/options.h"
#include "models/feature_maps.h"
#include "nn/conv.h"

namespace mixpl {

struct ChannelMapperOptions {
  int64_t channels = 256;
  int num_outputs = 4;           // the used C-levels, then extra ones at half the size each
  int first_level = 3;           // C3
  NormKind norm = NormKind::gn;  // of all its convolutions: gn (32 groups) or none (with a bias)
  int kernel = 1;  // of the C-levels' convolutions; not an option of the configuration

  /// { type: 'channel-mapper', channels, firstLevel, numOutputs, norm: 'gn' | 'none' }
  /// @throws ConfigError
  static ChannelMapperOptions read(const Options& options, const ChannelMapperOptions& defaults);
};

class ChannelMapper {
 public:
  /// Parameters: convs.<i>.{conv, gn}, extra_convs.<i>.{conv, gn}; no activation anywhere.
  /// @param in channels of C2 … C5
  ChannelMapper(const Scope& scope, const std::vector<int64_t>& in,
                const ChannelMapperOptions& options);

  /// C2 … C5 of some batches -> C_first … C5 of `channels` each, then the extra levels: the first
  /// of C5, each other of the one before
  std::vector<FeatureMaps> operator()(const std::vector<FeatureMaps>& c) const;
  int64_t channels() const { return options_.channels; }

 private:
  ChannelMapperOptions options_;
  std::vector<ConvNorm> convs_, extra_;
};

}  // namespace mixpl
