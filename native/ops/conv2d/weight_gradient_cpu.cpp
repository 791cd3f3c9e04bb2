// Weight gradient of a convolution of one group with AVX-512:
// dW[k, r, s, c] = sum over output pixels of dy[pixel, k] x[pixel shifted by (r, s), c].
//
// A task owns 64 input channels and a block of filters of dW, which stay in the second-level cache
// while the pixels stream by; nobody else writes there, so the sums have one fixed order whatever
// the number of threads. A panel holds rows of x for those 64 channels, zero-padded, so that each
// (r, s) reads it contiguously from the first-level cache. bf16 multiplies pairs of pixels
// (vdpbf16ps), so x panels and dy are interleaved pixel by pixel first.
#include "ops/conv2d/weight_gradient_cpu.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/avx512.h"
#include "core/parallel.h"

namespace mixpl::cpu {

#if defined(__x86_64__)
namespace {

constexpr int kLanes = 16;  // f32 of a vector
constexpr __mmask16 kAllLanes = 0xffff;
constexpr int kVectors = 4;                   // vectors of input channels a tile spans
constexpr int kChannels = kLanes * kVectors;  // input channels of a task
constexpr int kFilters = 6;                   // filters of a tile: 6 x 4 accumulators
constexpr int64_t kPanelBytes = 32 << 10;     // of one (r, s), to stay in the first-level cache
constexpr int64_t kMostFilters = 264;         // of a task, so that packed dy fits beside dW
constexpr int64_t kSumBytes = 512 << 10;      // of dW a task works on, second-level cache

// dy comes packed as [row][tile of filters][step][kFilters], so a tile streams it in order. One
// step of a panel is 64 words of 32 bits: a pixel in f32, two interleaved pixels in bf16.
struct Tile {
  const uint32_t* const* x;  // first step of each row
  const uint32_t* dy;        // words [row][step][kFilters]
  int64_t rows, steps;
  int64_t dy_row;     // pitch in words
  float* dw;          // [filter][channel]
  int64_t dw_filter;  // pitch
  uint16_t last;      // lanes of the last vector that are channels
};

template <int F, int V>
MIXPL_AVX512 void tile_f32(const Tile& t) {
  __m512 sum[F][V];
  for (int f = 0; f < F; ++f)
    for (int v = 0; v < V; ++v) {
      sum[f][v] = _mm512_maskz_loadu_ps(v == V - 1 ? t.last : kAllLanes,
                                        t.dw + f * t.dw_filter + v * kLanes);
      // What the next tile adds to is far away: ask for it now.
      _mm_prefetch(t.dw + (f + kFilters) * t.dw_filter + v * kLanes, _MM_HINT_T0);
    }
  for (int64_t row = 0; row < t.rows; ++row) {
    const float* x = reinterpret_cast<const float*>(t.x[row]);
    const float* dy = reinterpret_cast<const float*>(t.dy + row * t.dy_row);
    for (int64_t i = 0; i < t.steps; ++i, x += V * kLanes, dy += kFilters) {
      __m512 channels[V];
      for (int v = 0; v < V; ++v) channels[v] = _mm512_load_ps(x + v * kLanes);
      for (int f = 0; f < F; ++f) {
        const __m512 filter = _mm512_set1_ps(dy[f]);
        for (int v = 0; v < V; ++v) sum[f][v] = _mm512_fmadd_ps(filter, channels[v], sum[f][v]);
      }
    }
  }
  for (int f = 0; f < F; ++f)
    for (int v = 0; v < V; ++v)
      _mm512_mask_storeu_ps(t.dw + f * t.dw_filter + v * kLanes, v == V - 1 ? t.last : kAllLanes,
                            sum[f][v]);
}

template <int F, int V>
MIXPL_AVX512_BF16 void tile_bf16(const Tile& t) {
  __m512 sum[F][V];
  for (int f = 0; f < F; ++f)
    for (int v = 0; v < V; ++v) {
      sum[f][v] = _mm512_maskz_loadu_ps(v == V - 1 ? t.last : kAllLanes,
                                        t.dw + f * t.dw_filter + v * kLanes);
      // What the next tile adds to is far away: ask for it now.
      _mm_prefetch(t.dw + (f + kFilters) * t.dw_filter + v * kLanes, _MM_HINT_T0);
    }
  for (int64_t row = 0; row < t.rows; ++row) {
    const uint32_t* x = t.x[row];
    const uint32_t* dy = t.dy + row * t.dy_row;
    for (int64_t i = 0; i < t.steps; ++i, x += V * kLanes, dy += kFilters) {
      __m512bh channels[V];
      for (int v = 0; v < V; ++v)
        channels[v] = reinterpret_cast<__m512bh>(_mm512_load_si512(x + v * kLanes));
      for (int f = 0; f < F; ++f) {
        const __m512bh filter = reinterpret_cast<__m512bh>(_mm512_set1_epi32(int(dy[f])));
        for (int v = 0; v < V; ++v) sum[f][v] = _mm512_dpbf16_ps(sum[f][v], filter, channels[v]);
      }
    }
  }
  for (int f = 0; f < F; ++f)
    for (int v = 0; v < V; ++v)
      _mm512_mask_storeu_ps(t.dw + f * t.dw_filter + v * kLanes, v == V - 1 ? t.last : kAllLanes,
                            sum[f][v]);
}

using TileFunction = void (*)(const Tile&);
template <int V>
TileFunction pick(bool bf16, int64_t filters) {
  static constexpr TileFunction f32[] = {tile_f32<1, V>, tile_f32<2, V>, tile_f32<3, V>,
                                         tile_f32<4, V>, tile_f32<5, V>, tile_f32<6, V>};
  static constexpr TileFunction half[] = {tile_bf16<1, V>, tile_bf16<2, V>, tile_bf16<3, V>,
                                          tile_bf16<4, V>, tile_bf16<5, V>, tile_bf16<6, V>};
  return (bf16 ? half : f32)[filters - 1];
}
TileFunction pick(bool bf16, int64_t filters, int vectors) {
  switch (vectors) {
    case 1:
      return pick<1>(bf16, filters);
    case 2:
      return pick<2>(bf16, filters);
    case 3:
      return pick<3>(bf16, filters);
    default:
      return pick<4>(bf16, filters);
  }
}

// out[i] = {a[i], b[i]} for n numbers, then zeros up to whole vectors; null stands for zeros.
MIXPL_AVX512 void interleave(const uint16_t* a, const uint16_t* b, uint32_t* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = n - i >= kLanes ? kAllLanes : __mmask16((1u << (n - i)) - 1);
    const __m512i low =
        _mm512_cvtepu16_epi32(a ? _mm256_maskz_loadu_epi16(lanes, a + i) : _mm256_setzero_si256());
    const __m512i high =
        _mm512_cvtepu16_epi32(b ? _mm256_maskz_loadu_epi16(lanes, b + i) : _mm256_setzero_si256());
    _mm512_storeu_si512(out + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

constexpr int64_t tiles(int64_t filters) { return (filters + kFilters - 1) / kFilters; }

struct Problem {
  int64_t n, h, w, c, k, r, s, p, q;
  int64_t stride, padding, dilation;
  int pixels;     // of a step: 1 in f32, 2 in bf16
  int64_t steps;  // of an output row
  int64_t band;   // output rows worked on at a time
  const void* x;
  const void* dy;
  float* dw;

  int64_t bytes(int64_t numbers) const { return numbers * (pixels == 2 ? 2 : 4); }
};

// Rows of x for one block of channels, packed when first needed. Columns outside are zeros.
class Panel {
 public:
  Panel(const Problem& problem, int64_t channel)
      : p_(problem),
        channel_(channel),
        channels_(std::min<int64_t>(kChannels, p_.c - channel)),
        vectors_(static_cast<int>((channels_ + kLanes - 1) / kLanes)),
        width_(vectors_ * kLanes),
        period_(p_.pixels * p_.stride) {
    // Kernel columns that lie a whole step apart read the same packing.
    const int64_t reach = p_.dilation * (p_.s - 1);
    classes_.assign(period_, -1);
    int64_t count = 0;
    for (int64_t s = 0; s < p_.s; ++s) {
      int64_t& id = classes_[s * p_.dilation % period_];
      if (id < 0) id = count++;
    }
    steps_ = p_.steps + reach / period_;
    row_words_ = count * steps_ * width_;
    slots_ = std::min<int64_t>(p_.h, (p_.band - 1) * p_.stride + p_.dilation * (p_.r - 1) + 1);
    storage_ = Tensor::empty({slots_ * row_words_}, DType::i32);
    held_.assign(slots_, {-1, -1});
  }
  const uint32_t* row(int64_t n, int64_t y, int64_t s) {
    const int64_t slot = y % slots_;
    uint32_t* at = reinterpret_cast<uint32_t*>(storage_.raw()) + slot * row_words_;
    if (held_[slot] != std::pair{n, y}) {
      pack(n, y, at);
      held_[slot] = {n, y};
    }
    const int64_t shift = s * p_.dilation;
    return at + (classes_[shift % period_] * steps_ + shift / period_) * width_;
  }
  int64_t channel() const { return channel_; }
  int vectors() const { return vectors_; }
  uint16_t last_lanes() const { return static_cast<uint16_t>(0xffffu >> (width_ - channels_)); }

 private:
  const uint8_t* pixel(int64_t n, int64_t y, int64_t column) const {
    if (column < 0 || column >= p_.w) return nullptr;
    return static_cast<const uint8_t*>(p_.x) +
           p_.bytes(((n * p_.h + y) * p_.w + column) * p_.c + channel_);
  }
  void pack(int64_t n, int64_t y, uint32_t* out) {
    for (int64_t first = 0; first < period_; ++first) {
      if (classes_[first] < 0) continue;
      uint32_t* to = out + classes_[first] * steps_ * width_;
      for (int64_t i = 0; i < steps_; ++i, to += width_) {
        const int64_t column = i * period_ + first - p_.padding;
        if (p_.pixels == 2) {
          interleave(reinterpret_cast<const uint16_t*>(pixel(n, y, column)),
                     reinterpret_cast<const uint16_t*>(pixel(n, y, column + p_.stride)), to,
                     channels_);
        } else if (const uint8_t* from = pixel(n, y, column)) {
          std::memcpy(to, from, channels_ * sizeof(float));
          std::memset(to + channels_, 0, (width_ - channels_) * sizeof(float));
        } else {
          std::memset(to, 0, width_ * sizeof(float));
        }
      }
    }
  }

  const Problem& p_;
  int64_t channel_, channels_;
  int vectors_;
  int64_t width_, period_, steps_ = 0, row_words_ = 0, slots_ = 0;
  std::vector<int64_t> classes_;
  Tensor storage_;
  std::vector<std::pair<int64_t, int64_t>> held_;
};

// Rows of dy for filters [filter, filter + filters) as [row][tile][step][kFilters].
void pack_dy(const Problem& p, int64_t row, int64_t rows, int64_t filter, int64_t filters,
             uint32_t* out) {
  static_assert(kFilters == 6, "copies below are of four and two words");
  const int64_t whole = filters / kFilters * kFilters;
  for (const int64_t end = row + rows; row < end; ++row)
    for (int64_t i = 0; i < p.steps; ++i) {
      const int64_t at = (row * p.q + i * p.pixels) * p.k + filter;
      uint32_t* to = out + ((row - end + rows) * tiles(filters) * p.steps + i) * kFilters;
      const int64_t tile = p.steps * kFilters;
      if (p.pixels == 1) {
        const float* from = static_cast<const float*>(p.dy) + at;
        for (int64_t f = 0; f < whole; f += kFilters, to += tile)
          std::memcpy(to, from + f, kFilters * sizeof(float));
        std::memcpy(to, from + whole, (filters - whole) * sizeof(float));
        continue;
      }
      const uint16_t* first = static_cast<const uint16_t*>(p.dy) + at;
      const bool pair = 2 * i + 1 < p.q;
      int64_t f = 0;
      // Reads eight numbers to keep six, so stops before the end.
      if (pair)
        for (; f + 8 <= filters; f += kFilters, to += tile) {
          const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first + f));
          const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first + p.k + f));
          _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_unpacklo_epi16(a, b));
          _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 4), _mm_unpackhi_epi16(a, b));
        }
      for (; f < filters; f += kFilters, to += tile)
        for (int64_t j = f; j < std::min(filters, f + kFilters); ++j)
          to[j - f] = first[j] | (pair ? uint32_t{first[p.k + j]} << 16 : 0);
    }
}

// Blocks [first, last) of channels for filters [filter, filter + filters).
void run_task(const Problem& p, int64_t first_block, int64_t last_block, int64_t filter,
              int64_t filters) {
  std::vector<Panel> panels;
  for (int64_t block = first_block; block < last_block; ++block)
    panels.emplace_back(p, block * kChannels);
  const int64_t dy_row = tiles(filters) * kFilters * p.steps;
  const Tensor packed = Tensor::empty({p.band * dy_row}, DType::i32);
  uint32_t* dy = reinterpret_cast<uint32_t*>(packed.raw());
  std::vector<const uint32_t*> rows(p.band);
  Tile tile;
  tile.x = rows.data();
  tile.steps = p.steps;
  tile.dy_row = dy_row;
  tile.dw_filter = p.r * p.s * p.c;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t top = 0; top < p.p; top += p.band) {
      const int64_t bottom = std::min(p.p, top + p.band);
      pack_dy(p, n * p.p + top, bottom - top, filter, filters, dy);
      for (Panel& panel : panels)
        for (int64_t r = 0; r < p.r; ++r)
          for (int64_t s = 0; s < p.s; ++s) {
            // Output rows of the band whose input row is inside the image.
            int64_t first = -1;
            tile.rows = 0;
            for (int64_t y = top; y < bottom; ++y) {
              const int64_t input = y * p.stride + r * p.dilation - p.padding;
              if (input < 0 || input >= p.h) continue;
              if (first < 0) first = y;
              rows[tile.rows++] = panel.row(n, input, s);
            }
            if (!tile.rows) continue;
            tile.last = panel.last_lanes();
            for (int64_t f = 0; f < filters; f += kFilters) {
              tile.dy = dy + (first - top) * dy_row + f * p.steps;
              tile.dw = p.dw + (((filter + f) * p.r + r) * p.s + s) * p.c + panel.channel();
              pick(p.pixels == 2, std::min<int64_t>(kFilters, filters - f), panel.vectors())(tile);
            }
          }
    }
}

}  // namespace

bool weight_gradient_avx512(const Tensor& x, const Tensor& dy, const Conv2dOptions& o, bool always,
                            Tensor& dweight) {
  const bool bf16 = x.dtype() == DType::bf16;
  if (!(bf16 ? has_avx512_bf16() : has_avx512())) return false;
  // Where oneDNN's kernels are no slower, they stay: large maps at stride 1, most of f32, the stem.
  const int64_t pixels = dy.size(0) * dy.size(1) * dy.size(2);
  const int64_t taps = dweight.size(1) * dweight.size(2);
  const bool strided = o.stride > 1 && taps > 1;
  const bool small = pixels * taps <= (bf16 ? 25000 : 2000);
  const bool quicker = strided || small || dweight.size(0) % kLanes != 0;
  if (!always && (!quicker || x.size(3) < kLanes)) return false;

  Problem p{};
  p.n = x.size(0), p.h = x.size(1), p.w = x.size(2), p.c = x.size(3);
  p.k = dweight.size(0), p.r = dweight.size(1), p.s = dweight.size(2);
  p.p = dy.size(1), p.q = dy.size(2);
  p.stride = o.stride, p.padding = o.padding, p.dilation = o.dilation;
  p.pixels = bf16 ? 2 : 1;
  p.x = x.raw(), p.dy = dy.raw(), p.dw = dweight.data<float>();
  if (p.r == 1 && p.s == 1 && p.stride == 1 && p.padding == 0) {
    // Pixels need no neighbours: cut them into rows of a handy length.
    const int64_t all = p.n * p.h * p.w;
    int64_t row = 64;
    while (row > 1 && all % row) --row;
    if (row >= 16) p.n = 1, p.h = p.p = all / row, p.w = p.q = row;
  }
  p.steps = (p.q + p.pixels - 1) / p.pixels;
  constexpr int64_t kStepBytes = kChannels * sizeof(uint32_t);
  p.band = std::clamp<int64_t>(kPanelBytes / std::max<int64_t>(1, p.steps * kStepBytes), 1, p.p);

  // Without neighbours, packing is what costs: all channels in a task, so that dy is packed once.
  const int64_t blocks = (p.c + kChannels - 1) / kChannels;
  const int64_t per_filter = p.r * p.s * kStepBytes;  // of dW in a block
  const int64_t most_filters =
      std::max<int64_t>(kFilters, std::min<int64_t>(kMostFilters, kSumBytes / per_filter));
  const int64_t per_task =
      p.r * p.s > 1
          ? 1
          : std::clamp<int64_t>(kSumBytes / (per_filter * std::min(most_filters, p.k)), 1, blocks);
  const int64_t sets = (blocks + per_task - 1) / per_task;
  int64_t splits = (p.k + most_filters - 1) / most_filters;
  while (sets * splits % num_threads() && splits * kFilters * 4 < p.k) ++splits;
  const int64_t filters = tiles((p.k + splits - 1) / splits) * kFilters;
  splits = (p.k + filters - 1) / filters;
  std::memset(dweight.raw(), 0, dweight.nbytes());
  parallel_for(sets * splits, 1, [&](int64_t task) {
    const int64_t block = task / splits * per_task, filter = task % splits * filters;
    run_task(p, block, std::min(blocks, block + per_task), filter, std::min(filters, p.k - filter));
  });
  return true;
}

#else

bool weight_gradient_avx512(const Tensor&, const Tensor&, const Conv2dOptions&, bool, Tensor&) {
  return false;
}

#endif

}  // namespace mixpl::cpu
