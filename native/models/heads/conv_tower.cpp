#include "models/heads/conv_tower.h"

namespace mixpl {

TowerOptions TowerOptions::read(const Options& options, const TowerOptions& defaults) {
  TowerOptions out = defaults;
  out.channels = options.integer("channels", out.channels);
  out.stacked_convs = static_cast<int>(options.integer("stackedConvs", out.stacked_convs));
  out.norm = parse_norm(options.text("norm", out.norm == NormKind::gn ? "gn" : "none"));
  if (out.channels < 1 || out.channels > 1 << 16)
    throw ConfigError(str("head.channels must be in [1, 65536], got ", out.channels));
  if (out.stacked_convs < 0 || out.stacked_convs > 16)
    throw ConfigError(str("head.stackedConvs must be in [0, 16], got ", out.stacked_convs));
  if (out.norm != NormKind::none && out.norm != NormKind::gn)
    throw ConfigError(
        "head.norm must be 'none' or 'gn' (a head shared by levels has no batch "
        "statistics of its own)");
  return out;
}

ConvTower::ConvTower(const Scope& scope, const std::string& name, int64_t in,
                     const TowerOptions& options)
    : channels_(options.stacked_convs ? options.channels : in) {
  for (int i = 0; i < options.stacked_convs; ++i) {
    ConvSpec spec;
    spec.in = i == 0 ? in : options.channels;
    spec.out = options.channels;
    spec.norm = options.norm;
    spec.conv_bias = options.conv_bias;
    spec.relu = true;
    spec.init = init::normal(0.01f);
    layers_.emplace_back(scope.child(str(name, ".", i)), "conv", "gn", spec);
  }
}

std::vector<Tensor> ConvTower::operator()(const std::vector<Tensor>& levels) const {
  std::vector<Tensor> y = levels;
  for (const ConvNorm& layer : layers_) y = layer(y);
  return y;
}

}  // namespace mixpl
