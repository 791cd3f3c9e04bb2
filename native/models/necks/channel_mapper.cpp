#include "models/necks/channel_mapper.h"

#include "models/probe.h"

namespace mixpl {

ChannelMapperOptions ChannelMapperOptions::read(const Options& options,
                                                const ChannelMapperOptions& defaults) {
  ChannelMapperOptions out = defaults;
  const std::string type = options.text("type", "channel-mapper");
  if (type != "channel-mapper")
    throw ConfigError(str("neck.type must be 'channel-mapper', got '", type, "'"));
  out.channels = options.integer("channels", out.channels);
  const int64_t first_level = options.integer("firstLevel", out.first_level),
                num_outputs = options.integer("numOutputs", out.num_outputs);
  const std::string norm = options.text("norm", out.norm == NormKind::gn ? "gn" : "none");
  options.finish();
  if (norm != "none" && norm != "gn")
    throw ConfigError(str("neck.norm must be 'none' or 'gn', got '", norm, "'"));
  out.norm = parse_norm(norm);
  if (out.channels < 1) throw ConfigError(str("neck.channels must be >= 1, got ", out.channels));
  if (first_level < 2 || first_level > 5)
    throw ConfigError(str("neck.firstLevel must be in [2, 5], got ", first_level));
  const int64_t used = 6 - first_level;
  if (num_outputs < used || num_outputs > 8)
    throw ConfigError(str("neck.numOutputs must be in [", used, ", 8] (one for each of C",
                          first_level, " to C5 at least), got ", num_outputs));
  out.first_level = static_cast<int>(first_level);
  out.num_outputs = static_cast<int>(num_outputs);
  return out;
}

ChannelMapper::ChannelMapper(const Scope& scope, const std::vector<int64_t>& in,
                             const ChannelMapperOptions& options)
    : options_(options) {
  ConvSpec spec;
  spec.out = options.channels;
  spec.norm = options.norm;
  spec.init = init::xavier_uniform();
  const auto conv = [&](const std::string& path, int64_t channels) {
    spec.in = channels;
    return ConvNorm(scope.child(path), "conv", norm_name(options.norm), spec);
  };
  spec.kernel = options.kernel;
  for (int level = options.first_level; level <= 5; ++level)
    convs_.push_back(conv(str("convs.", level - options.first_level), in[level - 2]));
  spec.kernel = 3;
  spec.stride = 2;
  for (size_t i = 0; convs_.size() + i < static_cast<size_t>(options.num_outputs); ++i)
    extra_.push_back(conv(str("extra_convs.", i), i == 0 ? in.back() : options.channels));
}

std::vector<FeatureMaps> ChannelMapper::operator()(const std::vector<FeatureMaps>& c) const {
  std::vector<FeatureMaps> out(c.size());
  for (size_t i = 0; i < convs_.size(); ++i)
    add_level(out, convs_[i](level_of(c, options_.first_level - 2 + i)));
  for (size_t i = 0; i < extra_.size(); ++i)
    add_level(out, extra_[i](last_level(i == 0 ? c : out)));
  for (const FeatureMaps& levels : out) show_levels(levels, options_.first_level);
  return out;
}

}  // namespace mixpl
