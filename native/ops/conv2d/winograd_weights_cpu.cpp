#include "ops/conv2d/winograd_weights_cpu.h"

#include <algorithm>

#include "ops/conv2d/winograd_transforms_cpu.h"

namespace mixpl::cpu::winograd {

#if defined(__x86_64__)
namespace {

constexpr int64_t kTaps = 9;
constexpr int64_t kAhead = 8 * kLanes;

// One input channel: nine taps of 16 output channels to 36 factors.
template <bool kBf16>
MIXPL_AVX512_BF16 inline void transform(const __m512* taps, int64_t tap, float* to,
                                        int64_t product) {
  __m512 g[kTaps], half[18], u[kProducts];
  for (int i = 0; i < kTaps; ++i) {
    g[i] = taps[i * tap];
    if constexpr (kBf16) {
      const __m512i bits =
          _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(g[i])));
      g[i] = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    }
  }
  for (int s = 0; s < 3; ++s) weights_to_factors(g + s, 3, half + s, 3);
  for (int r = 0; r < kIn; ++r) weights_to_factors(half + 3 * r, 1, u + kIn * r, 1);
  for (int j = 0; j < kProducts; ++j) {
    _mm512_storeu_ps(to + j * product, u[j]);
    __builtin_prefetch(to + j * product + kAhead, 1);  // more streams than the processor follows
  }
}

// Input channels are contiguous in the weight: 16 of them at a time through a transposition.
template <bool kBf16>
MIXPL_AVX512_BF16 void transform_rows(const float* w, int64_t filters, int64_t c, float* to,
                                      int64_t step, int64_t product) {
  for (int64_t first = 0; first < c; first += kLanes) {
    __m512 taps[kTaps][kLanes];
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      __m512i rows[kLanes];
      for (int64_t k = 0; k < kLanes; ++k) {
        const float* from = w + (k * kTaps + tap) * c + first;
        if (k < filters) _mm_prefetch(from + kLanes, _MM_HINT_T0);
        rows[k] = k < filters ? _mm512_maskz_loadu_epi32(lanes_of(c - first), from)
                              : _mm512_setzero_si512();
      }
      transpose(rows);
      for (int64_t i = 0; i < kLanes; ++i) taps[tap][i] = _mm512_castsi512_ps(rows[i]);
    }
    for (int64_t i = 0; i < std::min(kLanes, c - first); ++i)
      transform<kBf16>(&taps[0][i], kLanes, to + (first + i) * step, product);
  }
}

// Output channels are contiguous.
template <bool kBf16>
MIXPL_AVX512_BF16 void transform_columns(const float* w, int64_t filters, int64_t k, int64_t c,
                                         float* to, int64_t step, int64_t product) {
  for (int64_t i = 0; i < k; ++i) {
    __m512 taps[kTaps];
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const float* from = w + (i * kTaps + tap) * c;
      _mm_prefetch(from + 4 * kTaps * c, _MM_HINT_T0);
      taps[kTaps - 1 - tap] = _mm512_maskz_loadu_ps(lanes_of(filters), from);
    }
    transform<kBf16>(taps, 1, to + i * step, product);
  }
}

}  // namespace

void transform_weights(const Tensor& weight, bool turned, bool bf16, int64_t panel, float* factors,
                       int64_t product) {
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

#endif

}  // namespace mixpl::cpu::winograd
