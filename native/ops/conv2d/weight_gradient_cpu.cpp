// Weight gradient of a convolution of one group with AVX-512. dW[k, r, s, c] = sum over pixels of dy[pixel, k] x[shifted pixel, c].
//
// A task owns 64 input channels and a block of filters of dW, which stay in the second-level cache
// while the pixels stream by; nobody else writes there, so the sums have one fixed order whatever
// the number of threads. A panel holds rows of x for those 64 channels, zero-padded, so that each
// (r, s) reads it contiguously from the first-level cache. bf16 multiplies pairs of pixels
// (vdpbf16ps), so x panels and dy are interleaved pixel by pixel first.
#include "ops/conv2d/weight_gradient_cpu.h"

#include <algorithm>
#include <cstring>
#include <cstdlib>
#include <vector>

#include "core/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mixpl::cpu {

#if defined(__x86_64__)
namespace {

#define MIXPL_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define MIXPL_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

constexpr int kLanes = 16;                      // f32 of a vector
constexpr __mmask16 kAllLanes = 0xffff;
constexpr int kVectors = 4;                     // vectors of input channels a tile spans
constexpr int kChannels = kLanes * kVectors;    // input channels of a task
constexpr int kFilters = 6;                     // filters of a tile: 6 x 4 accumulators
static int64_t kPanelBytes = (getenv("PB")?atoi(getenv("PB")):32) << 10;
static int64_t kSumBytes = (getenv("SB")?atoi(getenv("SB")):512) << 10;

// dy comes packed as [row][tile of filters][step][kFilters], so a tile streams it in order. One step
// of a panel is 64 words of 32 bits: a pixel in f32, two interleaved pixels in bf16.
struct Tile {
  const uint32_t* const* x;  // first step of each row
  const uint32_t* dy;        // words [row][step][kFilters]
  int64_t rows, steps;
  int64_t dy_row;  // pitch in words
  float* dw;                // [filter][channel]
  int64_t dw_filter;        // pitch
  uint16_t last;            // lanes of the last vector that are channels
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
    const __m512i low = _mm512_cvtepu16_epi32(a ? _mm256_maskz_loadu_epi16(lanes, a + i) : _mm256_setzero_si256());
    const __m512i high = _mm512_cvtepu16_epi32(b ? _mm256_maskz_loadu_epi16(lanes, b + i) : _mm256_setzero_si256());
    _mm512_storeu_si512(out + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

struct Problem {
  int64_t n, h, w, c, k, r, s, p, q;
  int64_t stride, padding, dilation;
  int pixels;     // of a step: 1 in f32, 2 in bf16
  int64_t steps;  // of an output row
  const void* x;
  int64_t dy_row;  // words of a packed row
  const uint32_t* dy;
  float* dw;
};

void pack_dy(const Problem& p, const void* dy, uint32_t* out) {
  parallel_chunks(p.n * p.p, std::max<int64_t>(1, 32768 / (p.q * p.k)), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> step(p.k + kLanes);
    for (int64_t row = begin; row < end; ++row)
      for (int64_t i = 0; i < p.steps; ++i) {
        const int64_t at = (row * p.q + i * p.pixels) * p.k;
        const uint32_t* from = step.data();
        if (p.pixels == 2) {
          const uint16_t* first = static_cast<const uint16_t*>(dy) + at;
          interleave(first, 2 * i + 1 < p.q ? first + p.k : nullptr, step.data(), p.k);
        } else {
          from = static_cast<const uint32_t*>(dy) + at;
        }
        uint32_t* to = out + row * p.dy_row + i * kFilters;
        int64_t f = 0;
        for (; f + kFilters <= p.k; f += kFilters, to += p.steps * kFilters)
          std::memcpy(to, from + f, kFilters * sizeof(uint32_t));
        for (int64_t left = f; left < p.k; ++left) to[left - f] = from[left];
      }
  });
}

// Rows of x for the task's channels, packed when first needed.
class Panel {
 public:
  Panel(const Problem& problem, int64_t channel, int64_t channels, int64_t band)
      : p_(problem),
        channel_(channel),
        channels_(channels),
        width_((channels + kLanes - 1) / kLanes * kLanes) {
    // Columns s and s + period of the kernel read the same packing, one step apart.
    period_ = p_.pixels * p_.stride;
    const int64_t reach = p_.dilation * (p_.s - 1);
    classes_.assign(period_, -1);
    int64_t count = 0;
    for (int64_t s = 0; s < p_.s; ++s) {
      int64_t& id = classes_[s * p_.dilation % period_];
      if (id < 0) id = count++;
    }
    steps_ = p_.steps + reach / period_;
    row_words_ = count * steps_ * width_;
    slots_ = std::min<int64_t>(p_.h, (band - 1) * p_.stride + p_.dilation * (p_.r - 1) + 1);
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

 private:
  template <typename T>
  const T* pixel(int64_t n, int64_t y, int64_t column) const {
    return column < 0 || column >= p_.w
               ? nullptr
               : static_cast<const T*>(p_.x) + ((n * p_.h + y) * p_.w + column) * p_.c + channel_;
  }
  void pack(int64_t n, int64_t y, uint32_t* out) const {
    for (int64_t first = 0; first < period_; ++first) {
      if (classes_[first] < 0) continue;
      uint32_t* to = out + classes_[first] * steps_ * width_;
      for (int64_t i = 0; i < steps_; ++i, to += width_) {
        const int64_t column = i * period_ + first - p_.padding;
        if (p_.pixels == 2) {
          interleave(pixel<uint16_t>(n, y, column), pixel<uint16_t>(n, y, column + p_.stride), to,
                     channels_);
        } else if (const float* from = pixel<float>(n, y, column)) {
          std::memcpy(to, from, channels_ * sizeof(float));
          std::memset(to + channels_, 0, (width_ - channels_) * sizeof(float));
        } else {
          std::memset(to, 0, width_ * sizeof(float));
        }
      }
    }
  }

  const Problem& p_;
  int64_t channel_, channels_, width_, period_ = 1, steps_ = 0, row_words_ = 0, slots_ = 0;
  std::vector<int64_t> classes_;
  Tensor storage_;
  std::vector<std::pair<int64_t, int64_t>> held_;
};

void run_task(const Problem& p, int64_t channel, int64_t filter, int64_t filters, int64_t band) {
  const int64_t channels = std::min<int64_t>(kChannels, p.c - channel);
  const int vectors = static_cast<int>((channels + kLanes - 1) / kLanes);
  Panel panel(p, channel, channels, band);
  std::vector<const uint32_t*> rows(band);
  const bool bf16 = p.pixels == 2;
  Tile tile;
  tile.x = rows.data();
  tile.steps = p.steps;
  tile.dy_row = p.dy_row;
  tile.last = static_cast<uint16_t>(0xffffu >> (vectors * kLanes - channels));
  tile.dw_filter = p.r * p.s * p.c;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t top = 0; top < p.p; top += band)
      for (int64_t r = 0; r < p.r; ++r)
        for (int64_t s = 0; s < p.s; ++s) {
          // Output rows of the band whose input row is inside the image.
          int64_t first = -1;
          tile.rows = 0;
          for (int64_t y = top; y < std::min(p.p, top + band); ++y) {
            const int64_t input = y * p.stride + r * p.dilation - p.padding;
            if (input < 0 || input >= p.h) continue;
            if (first < 0) first = y;
            rows[tile.rows++] = panel.row(n, input, s);
          }
          if (!tile.rows) continue;
          const uint32_t* dy = p.dy + (n * p.p + first) * p.dy_row;
          for (int64_t f = filter; f < filter + filters; f += kFilters) {
            const int64_t count = std::min<int64_t>(kFilters, filter + filters - f);
            tile.dy = dy + f * p.steps;
            tile.dw = p.dw + ((f * p.r + r) * p.s + s) * p.c + channel;
            pick(bf16, count, vectors)(tile);
          }
        }
}

bool has_avx512() {
  static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return yes;
}
bool has_avx512_bf16() {
  static const bool yes = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return yes;
}

}  // namespace

bool weight_gradient_avx512(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight) {
  const bool bf16 = x.dtype() == DType::bf16;
  if (!(bf16 ? has_avx512_bf16() : has_avx512())) return false;
  if (o.groups != 1) return false;
  Problem p{};
  p.n = x.size(0), p.h = x.size(1), p.w = x.size(2), p.c = x.size(3);
  p.k = dweight.size(0), p.r = dweight.size(1), p.s = dweight.size(2);
  p.p = dy.size(1), p.q = dy.size(2);
  p.stride = o.stride, p.padding = o.padding, p.dilation = o.dilation;
  if (p.r == 1 && p.s == 1 && p.stride == 1 && p.padding == 0) {
    // Pixels need no neighbours: cut them into rows of a handy length.
    const int64_t all = p.n * p.h * p.w;
    int64_t row = 64;
    while (row > 1 && all % row) --row;
    if (row >= 16) p.n = 1, p.h = p.p = all / row, p.w = p.q = row;
  }
  p.pixels = bf16 ? 2 : 1;
  p.steps = (p.q + p.pixels - 1) / p.pixels;
  p.x = x.raw();
  p.dw = dweight.data<float>();
  p.dy_row = (p.k + kFilters - 1) / kFilters * kFilters * p.steps;
  const Tensor packed = Tensor::empty({p.n * p.p, p.dy_row}, DType::i32);
  p.dy = reinterpret_cast<const uint32_t*>(packed.raw());
  pack_dy(p, dy.raw(), reinterpret_cast<uint32_t*>(packed.raw()));
  std::memset(dweight.raw(), 0, dweight.nbytes());
  const int64_t step_bytes = kChannels * sizeof(uint32_t);
  const int64_t band =
      std::clamp<int64_t>(kPanelBytes / std::max<int64_t>(1, p.steps * step_bytes), 1, p.p);
  const int64_t channel_blocks = (p.c + kChannels - 1) / kChannels;
  const int64_t per_filter = p.r * p.s * step_bytes;
  int64_t filters = std::max<int64_t>(1, kSumBytes / per_filter / kFilters) * kFilters;
  // At least two tasks a thread where the filters allow it.
  const int64_t wanted = (2 * num_threads() + channel_blocks - 1) / channel_blocks;
  const int64_t share = (p.k + wanted - 1) / wanted;
  filters = std::min(filters, (share + kFilters - 1) / kFilters * kFilters);
  const int64_t filter_blocks = (p.k + filters - 1) / filters;
  parallel_for(channel_blocks * filter_blocks, 1, [&](int64_t task) {
    const int64_t filter = task % filter_blocks * filters;
    run_task(p, task / filter_blocks * kChannels, filter, std::min(filters, p.k - filter), band);
  });
  return true;
}

#else

bool weight_gradient_avx512(const Tensor&, const Tensor&, const Conv2dOptions&, Tensor&) {
  return false;
}

#endif

}  // namespace mixpl::cpu
