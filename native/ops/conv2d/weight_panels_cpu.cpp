#include "ops/conv2d/weight_panels_cpu.h"

#include <algorithm>

#include "core/avx512.h"
#include "core/parallel.h"

namespace mixpl::cpu {

#if defined(__x86_64__)
namespace {

constexpr int64_t kLanes = 16;

__mmask16 lanes_of(int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, kLanes)) - 1);
}

// One vector of output channels for one tap.
struct Block {
  const float* w;         // first output channel, first input channel
  int64_t output, input;  // numbers from one channel to the next
  int64_t outputs, inputs;
  float* to;     // first input channel
  int64_t step;  // numbers from one input channel to the next
};

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

// Input channels are contiguous in the weight: 16 of them at a time through a transposition.
MIXPL_AVX512 void pack_transposed(const Block& b) {
  for (int64_t c = 0; c < b.inputs; c += kLanes) {
    __m512i rows[16];
    for (int64_t k = 0; k < kLanes; ++k)
      rows[k] = k < b.outputs
                    ? _mm512_maskz_loadu_epi32(lanes_of(b.inputs - c), b.w + k * b.output + c)
                    : _mm512_setzero_si512();
    transpose(rows);
    for (int64_t i = 0; i < std::min(b.inputs - c, kLanes); ++i)
      _mm512_storeu_si512(b.to + (c + i) * b.step, rows[i]);
  }
}

// Output channels are contiguous.
MIXPL_AVX512 void pack_rows(const Block& b) {
  const __mmask16 lanes = lanes_of(b.outputs);
  for (int64_t c = 0; c < b.inputs; ++c)
    _mm512_storeu_ps(b.to + c * b.step, _mm512_maskz_loadu_ps(lanes, b.w + c * b.input));
}

Tensor pack(const Tensor& weight, bool turned) {
  const int64_t taps = weight.size(1) * weight.size(2), c = weight.size(3);
  const int64_t outputs = turned ? c : weight.size(0), inputs = turned ? weight.size(0) : c;
  const PanelLayout layout(outputs);
  const Tensor panels = Tensor::empty({layout.vectors * taps * inputs * kLanes}, DType::f32);
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, inputs * kLanes));
  parallel_for(layout.vectors * taps, grain, [&](int64_t i) {
    const int64_t vector = i / taps, tap = i % taps;
    const int64_t panel = std::min(vector / 2, layout.count() - 1), width = layout.of(panel);
    Block b;
    b.output = turned ? 1 : taps * c;
    b.input = turned ? taps * c : 1;
    b.outputs = std::min(kLanes, outputs - vector * kLanes);
    b.inputs = inputs;
    b.w = weight.data<float>() + vector * kLanes * b.output + (turned ? taps - 1 - tap : tap) * c;
    b.step = width * kLanes;
    b.to = panels.data<float>() + (panel * 2 * taps + tap * width) * inputs * kLanes +
           (vector - panel * 2) * kLanes;
    turned ? pack_rows(b) : pack_transposed(b);
  });
  return panels;
}

}  // namespace

Tensor weight_panels(const Tensor& weight, bool turned) {
  return weight.derived<Tensor>(turned ? "turned panels" : "panels",
                                [&] { return pack(weight, turned); });
}

#endif

}  // namespace mixpl::cpu
