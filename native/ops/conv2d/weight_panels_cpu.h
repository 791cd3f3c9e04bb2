// Convolution weights in the order the tiles of gemm_tile_cpu.h read them.
#pragma once

#include "core/tensor.h"

namespace mixpl::cpu {

/// Output channels in panels of two vectors, the last of one to three, so that none is left alone.
struct PanelLayout {
  int64_t channels, vectors;
  explicit PanelLayout(int64_t output_channels)
      : channels(output_channels), vectors((output_channels + 15) / 16) {}
  int64_t count() const { return vectors < 2 ? vectors : vectors / 2; }
  int of(int64_t panel) const {
    return static_cast<int>(panel + 1 < count() ? 2 : vectors - 2 * panel);
  }
  /// Which lanes of a panel's last vector are channels.
  uint16_t last_lanes(int64_t panel) const {
    const int64_t empty = panel + 1 < count() ? 0 : 16 * vectors - channels;
    return static_cast<uint16_t>(0xffff >> empty);
  }
};

/// f32 numbers [panel][tap][input channel][vector][lane], zeros where there is no output channel.
/// Made once per version of the weight.
///
/// @param weight f32 [K, R, S, C]
/// @param turned false: C are input channels, K output channels, taps in order; true: the other way
/// round and turned by 180 degrees, as a data gradient reads it
Tensor weight_panels(const Tensor& weight, bool turned);

}  // namespace mixpl::cpu
