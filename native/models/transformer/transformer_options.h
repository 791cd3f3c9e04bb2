// What the options of every transformer have.
#pragma once

#include <cstdint>

#include "core/options.h"

namespace mixpl {

struct TransformerOptions {
  int64_t heads = 8;
  int encoder_layers = 6, decoder_layers = 6;
  int64_t ffn_channels = 2048;
  float dropout = 0;

  /// "transformer": { heads, encoderLayers, decoderLayers, ffnChannels, dropout }, and nothing else
  /// that has not been read.
  /// @param channels of the tokens. @throws ConfigError
  static TransformerOptions read(const Options& options, const TransformerOptions& defaults,
                                 int64_t channels);
};

/// @param name in "transformer". @throws ConfigError unless low <= value <= high
void check_transformer_count(const char* name, int64_t value, int64_t low, int64_t high);

}  // namespace mixpl
