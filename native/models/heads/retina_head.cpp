#include "models/heads/retina_head.h"

#include <cmath>

namespace mixpl {

RetinaHeadOptions RetinaHeadOptions::read(const Options& options) {
  RetinaHeadOptions out;
  out.channels = options.integer("channels", out.channels);
  out.stacked_convs = static_cast<int>(options.integer("stackedConvs", out.stacked_convs));
  out.norm = parse_norm(options.text("norm", "none"));
  options.finish();
  if (out.channels < 1) throw ConfigError(str("head.channels must be >= 1, got ", out.channels));
  if (out.stacked_convs < 0 || out.stacked_convs > 16)
    throw ConfigError(str("head.stackedConvs must be in [0, 16], got ", out.stacked_convs));
  if (out.norm != NormKind::none && out.norm != NormKind::gn)
    throw ConfigError(
        "head.norm must be 'none' or 'gn' (a head shared by levels has no batch "
        "statistics of its own)");
  return out;
}

RetinaHead::RetinaHead(const Scope& scope, int64_t in, int64_t anchors, int64_t classes,
                       const RetinaHeadOptions& options) {
  const auto tower = [&](const std::string& name) {
    std::vector<ConvNorm> layers;
    for (int i = 0; i < options.stacked_convs; ++i) {
      ConvSpec spec;
      spec.in = i == 0 ? in : options.channels;
      spec.out = options.channels;
      spec.norm = options.norm;
      spec.relu = true;
      spec.init = init::normal(0.01f);
      layers.emplace_back(scope.child(str(name, ".", i)), "conv", "gn", spec);
    }
    return layers;
  };
  cls_tower_ = tower("cls_convs");
  reg_tower_ = tower("reg_convs");
  ConvSpec out;
  out.in = options.stacked_convs ? options.channels : in;
  out.init = init::normal(0.01f);
  out.out = anchors * classes;
  out.bias = -std::log(99.0f);  // prior probability 0.01
  cls_ = ConvNorm(scope, "retina_cls", "", out);
  out.out = anchors * 4;
  out.bias = 0;
  reg_ = ConvNorm(scope, "retina_reg", "", out);
}

DenseOutputs RetinaHead::operator()(const std::vector<Tensor>& levels) const {
  DenseOutputs out;
  for (const Tensor& level : levels) {
    Tensor c = level, r = level;
    for (const ConvNorm& layer : cls_tower_) c = layer(c);
    for (const ConvNorm& layer : reg_tower_) r = layer(r);
    out.logits.push_back(cls_(c));
    out.deltas.push_back(reg_(r));
  }
  return out;
}

}  // namespace mixpl
