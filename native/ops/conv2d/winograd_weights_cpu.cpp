#include "ops/conv2d/winograd_weights_cpu.h"

#include <algorithm>

#include "ops/conv2d/winograd_transforms_cpu.h"

namespace mixpl::cpu::winograd {

#if defined(__x86_64__)
namespace {

constexpr int64_t kLanes = 16, kTaps = 9;
constexpr int64_t kAhead = 8 * kLanes;

__mmask16 lanes_of(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, kLanes)) - 1);
}

// Number j of rows[i] becomes number i of rows[j].
MIXPL_AVX512 void transpose(__m512i (&rows)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      rows[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  // Now a quarter of rows[4 i + j] is numbers 4 i … 4 i + 3 of result j, 4 + j, 8 + j or 12 + j.
  for (int j = 0; j < 4; ++j) {
    const __m512i even_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
    const __m512i even_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
    const __m512i odd_high = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    t[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

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
