#include "models/transformer/transformer_options.h"

#include "core/error.h"

namespace mixpl {

void check_transformer_count(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    throw ConfigError(
        str("transformer.", name, " must be in [", low, ", ", high, "], got ", value));
}

TransformerOptions TransformerOptions::read(const Options& options,
                                            const TransformerOptions& defaults, int64_t channels) {
  TransformerOptions out = defaults;
  out.heads = options.integer("heads", out.heads);
  out.encoder_layers = static_cast<int>(options.integer("encoderLayers", out.encoder_layers));
  out.decoder_layers = static_cast<int>(options.integer("decoderLayers", out.decoder_layers));
  out.ffn_channels = options.integer("ffnChannels", out.ffn_channels);
  out.dropout = static_cast<float>(options.number("dropout", out.dropout));
  options.finish();
  check_transformer_count("heads", out.heads, 1, 64);
  check_transformer_count("encoderLayers", out.encoder_layers, 0, 64);
  check_transformer_count("decoderLayers", out.decoder_layers, 1, 64);
  check_transformer_count("ffnChannels", out.ffn_channels, 1, 1 << 16);
  if (channels % out.heads)
    throw ConfigError(
        str("transformer.heads must divide neck.channels (", channels, "), got ", out.heads));
  if (!(out.dropout >= 0 && out.dropout < 1))
    throw ConfigError(str("transformer.dropout must be in [0, 1), got ", out.dropout));
  return out;
}

}  // namespace mixpl
