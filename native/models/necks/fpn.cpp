#include "models/necks/fpn.h"

#include "models/probe.h"
#include "ops/max_pool2d/max_pool2d.h"
#include "ops/relu/relu.h"
#include "ops/upsample_add/upsample_add.h"

namespace mixpl {

FpnOptions FpnOptions::read(const Options& options, const FpnOptions& defaults) {
  FpnOptions out = defaults;
  const std::string type = options.text("type", "fpn");
  if (type != "fpn") throw ConfigError(str("neck.type must be 'fpn', got '", type, "'"));
  out.channels = options.integer("channels", out.channels);
  out.first_level = static_cast<int>(options.integer("firstLevel", out.first_level));
  out.num_outputs = static_cast<int>(options.integer("numOutputs", out.num_outputs));
  const char* names[] = {"none", "on-input", "on-output"};
  const std::string extra = options.text("extra", names[static_cast<int>(out.extra)]);
  if (extra == "none")
    out.extra = Extra::none;
  else if (extra == "on-input")
    out.extra = Extra::on_input;
  else if (extra == "on-output")
    out.extra = Extra::on_output;
  else
    throw ConfigError(
        str("neck.extra must be 'none', 'on-input' or 'on-output', got '", extra, "'"));
  out.relu_before_extra = options.boolean("reluBeforeExtra", out.relu_before_extra);
  out.norm = parse_norm(options.text("norm", "none"));
  options.finish();
  if (out.norm != NormKind::none && out.norm != NormKind::bn && out.norm != NormKind::gn)
    throw ConfigError("neck.norm must be 'none', 'bn' or 'gn'");
  if (out.channels < 1) throw ConfigError(str("neck.channels must be >= 1, got ", out.channels));
  if (out.first_level < 2 || out.first_level > 5)
    throw ConfigError(str("neck.firstLevel must be in [2, 5], got ", out.first_level));
  if (out.num_outputs < 1 || out.num_outputs > 8)
    throw ConfigError(str("neck.numOutputs must be in [1, 8], got ", out.num_outputs));
  return out;
}

Fpn::Fpn(const Scope& scope, const std::vector<int64_t>& in, const FpnOptions& options)
    : options_(options) {
  const auto conv = [&](const std::string& path, int64_t channels, int kernel, int stride,
                        NormKind norm) {
    ConvSpec spec;
    spec.in = channels;
    spec.out = options.channels;
    spec.kernel = kernel;
    spec.stride = stride;
    spec.init = options.init;
    spec.norm = norm;
    return ConvNorm(scope.child(path), "conv", norm_name(norm), spec);
  };
  for (int level = options.first_level; level <= 5; ++level) {
    const int i = level - options.first_level;
    lateral_.push_back(conv(str("lateral_convs.", i), in[level - 2], 1, 1, options.norm));
    output_.push_back(conv(str("fpn_convs.", i), options.channels, 3, 1, options.norm));
  }
  if (options.extra == FpnOptions::Extra::none) return;
  for (int i = static_cast<int>(output_.size()); i < options.num_outputs; ++i) {
    const bool first = extra_.empty();
    const int64_t from =
        first && options.extra == FpnOptions::Extra::on_input ? in.back() : options.channels;
    extra_.push_back(conv(str("fpn_convs.", i), from, 3, 2,
                          options.norm_of_extra ? options.norm : NormKind::none));
  }
}

std::vector<FeatureMaps> Fpn::operator()(const std::vector<FeatureMaps>& c) const {
  const size_t batches = c.size();
  const int count = static_cast<int>(lateral_.size());
  std::vector<std::vector<Tensor>> inner(count);
  for (int i = count - 1; i >= 0; --i) {
    inner[i] = lateral_[i](level_of(c, options_.first_level - 2 + i));
    for (size_t b = 0; i + 1 < count && b < batches; ++b)
      inner[i][b] = upsample_add(inner[i][b], inner[i + 1][b]);
  }
  std::vector<FeatureMaps> p(batches);
  for (int i = 0; i < count && i < options_.num_outputs; ++i) add_level(p, output_[i](inner[i]));
  for (size_t i = 0; i < extra_.size(); ++i) {
    const bool on_input = i == 0 && options_.extra == FpnOptions::Extra::on_input;
    std::vector<Tensor> x = last_level(on_input ? c : p);
    if (i > 0 && options_.relu_before_extra)
      for (Tensor& map : x) map = relu(map);
    add_level(p, extra_[i](x));
  }
  while (static_cast<int>(p[0].size()) < options_.num_outputs)
    for (FeatureMaps& levels : p) levels.push_back(max_pool2d(levels.back(), {1, 2, 0}));
  for (const FeatureMaps& levels : p) show_levels(levels, options_.first_level);
  return p;
}

}  // namespace mixpl
