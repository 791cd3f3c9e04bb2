// Weights of a 3x3 convolution as Winograd's products read them.
#pragma once

#include "core/tensor.h"
#include "ops/conv2d/winograd/kernels.h"
#include "ops/conv2d/winograd/transforms.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

/// Output channels in panels of two vectors, the last of one to three, so that none is left alone.
struct PanelLayout {
  int64_t channels, vectors;
  explicit PanelLayout(int64_t output_channels)
      : channels(output_channels), vectors((output_channels + kLanes - 1) / kLanes) {}
  int64_t count() const { return vectors < 2 ? vectors : vectors / 2; }
  int of(int64_t panel) const {
    return static_cast<int>(panel + 1 < count() ? 2 : vectors - 2 * panel);
  }
  /// Which lanes of a panel's vector are channels.
  Lanes lanes(int64_t panel, int vector) const {
    return lanes_of(channels - (2 * panel + vector) * kLanes);
  }
};

constexpr int64_t kTaps = 9;
constexpr int64_t kFactorsAhead = 8 * kLanes;

// One input channel: nine taps of 16 output channels to 36 factors.
template <bool kBf16>
MIXPL_SIMD inline void transform(const Vector* taps, int64_t tap, float* to, int64_t product) {
  Vector g[kTaps], half[18], u[kProducts];
  for (int i = 0; i < kTaps; ++i) {
    g[i] = taps[i * tap];
    if constexpr (kBf16) g[i] = rounded_to_bf16(g[i]);
  }
  for (int s = 0; s < 3; ++s) weights_to_factors(g + s, 3, half + s, 3);
  for (int r = 0; r < kIn; ++r) weights_to_factors(half + 3 * r, 1, u + kIn * r, 1);
  for (int j = 0; j < kProducts; ++j) {
    store(to + j * product, u[j]);
    __builtin_prefetch(to + j * product + kFactorsAhead,
                       1);  // more streams than the processor follows
  }
}

// Input channels are contiguous in the weight: 16 of them at a time through a transposition.
template <bool kBf16>
MIXPL_SIMD void transform_rows(const float* w, int64_t filters, int64_t c, float* to, int64_t step,
                               int64_t product) {
  for (int64_t first = 0; first < c; first += kLanes) {
    Vector taps[kTaps][kLanes];
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      Vector rows[kLanes];
      for (int64_t k = 0; k < kLanes; ++k) {
        const float* from = w + (k * kTaps + tap) * c + first;
        if (k < filters) _mm_prefetch(from + kLanes, _MM_HINT_T0);
        rows[k] = k < filters ? load(from, lanes_of(c - first)) : splat(0);
      }
      transpose(rows);
      for (int64_t i = 0; i < kLanes; ++i) taps[tap][i] = rows[i];
    }
    for (int64_t i = 0; i < std::min(kLanes, c - first); ++i)
      transform<kBf16>(&taps[0][i], kLanes, to + (first + i) * step, product);
  }
}

// Output channels are contiguous.
template <bool kBf16>
MIXPL_SIMD void transform_columns(const float* w, int64_t filters, int64_t k, int64_t c, float* to,
                                  int64_t step, int64_t product) {
  for (int64_t i = 0; i < k; ++i) {
    Vector taps[kTaps];
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const float* from = w + (i * kTaps + tap) * c;
      _mm_prefetch(from + 4 * kTaps * c, _MM_HINT_T0);
      taps[kTaps - 1 - tap] = load(from, lanes_of(filters));
    }
    transform<kBf16>(taps, 1, to + i * step, product);
  }
}

/// G g G^T of a panel: factors [product][input channel][vector][lane], products `product` numbers
/// apart; zeros where there is no output channel.
///
/// @param weight f32 [K, 3, 3, C], rounded to bf16 first if `bf16`
/// @param turned false: C are input channels, K output channels; true: the other way round and
/// turned by 180 degrees, as a data gradient reads it
inline void transform_weights(const Tensor& weight, bool turned, bool bf16, int64_t panel,
                              float* factors, int64_t product) {
  const int64_t k = weight.size(0), c = weight.size(3);
  const PanelLayout layout(turned ? c : k);
  const int64_t width = layout.of(panel), step = width * kLanes;
  for (int64_t v = 0; v < width; ++v) {
    const int64_t first = (2 * panel + v) * kLanes;
    const int64_t filters = std::min(kLanes, layout.channels - first);
    float* to = factors + v * kLanes;
    if (turned)
      (bf16 ? transform_columns<true> : transform_columns<false>)(weight.data<float>() + first,
                                                                  filters, k, c, to, step, product);
    else
      (bf16 ? transform_rows<true>
            : transform_rows<false>)(weight.data<float>() + first * kTaps * c, filters, c, to, step,
                                     product);
  }
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
