// Weights of a 3x3 convolution as Winograd's products read them (winograd_cpu.h).
#pragma once

#include "core/tensor.h"

namespace mixpl::cpu::winograd {

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

/// G g G^T of a panel: factors [product][input channel][vector][lane], products `product` numbers
/// apart; zeros where there is no output channel.
///
/// @param weight f32 [K, 3, 3, C], rounded to bf16 first if `bf16`
/// @param turned false: C are input channels, K output channels; true: the other way round and
/// turned by 180 degrees, as a data gradient reads it
void transform_weights(const Tensor& weight, bool turned, bool bf16, int64_t panel, float* factors,
                       int64_t product);

}  // namespace mixpl::cpu::winograd
