#include "core/cuda/channel_sums.h"
#include "ops/tokens/tokens.h"

namespace mixpl::cuda {
namespace {

constexpr int kMostSpans = 16;  // of a launch

// Spans one behind the other, in packs of an image; counted in units of two bytes.
struct Spans {
  uint16_t* part[kMostSpans] = {};      // null: zeros
  uint32_t first[kMostSpans + 1] = {};  // of each span among all, packs; the last is their number
  uint32_t place[kMostSpans] = {};      // in the whole, packs
  uint16_t* whole = nullptr;
  uint32_t whole_packs = 0;  // of an image
  bool into_whole = false;
};

struct CopySpans {
  Spans s;
  Divider packs;  // of an image: of all spans

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t at = i;
    const uint32_t image = packs.split(at);
    int k = 0;
    while (at >= s.first[k + 1]) ++k;
    at -= s.first[k];
    uint16_t* const whole = s.whole + (int64_t{image} * s.whole_packs + s.place[k] + at) * N;
    uint16_t* const part = s.part[k] + (int64_t{image} * (s.first[k + 1] - s.first[k]) + at) * N;
    if (!s.into_whole)
      store_vec(part, load_vec<uint16_t, N>(whole));
    else
      store_vec(whole, s.part[k] ? load_vec<uint16_t, N>(part) : Vec<uint16_t, N>{});
  }
};

template <int N>
void copy_in_packs(const TokenSpan* spans, int count, const Tensor& whole, int64_t token,
                   bool into_whole) {
  Spans s;
  for (int k = 0; k < count; ++k) {
    s.part[k] = spans[k].part.defined() ? static_cast<uint16_t*>(spans[k].part.raw()) : nullptr;
    s.place[k] = index_of(spans[k].first * token / N);
    s.first[k + 1] = index_of(s.first[k] + spans[k].count * token / N);
  }
  s.whole = static_cast<uint16_t*>(whole.raw());
  s.whole_packs = index_of(whole.size(1) * token / N);
  s.into_whole = into_whole;
  const int64_t packs = s.first[count];
  for_each_pack<N>(whole.size(0) * packs, CopySpans{s, Divider(packs)});
}

void copy_spans(const std::vector<TokenSpan>& spans, const Tensor& whole, bool into_whole) {
  const int64_t token = whole.size(2) * size_of(whole.dtype()) / 2;
  std::vector<TokenSpan> filled;
  int64_t places = whole.size(1) * token;
  for (const TokenSpan& span : spans)
    if (span.count * token > 0) {
      filled.push_back(span);
      places |= span.first * token | span.count * token;
    }
  for (size_t k = 0; k < filled.size(); k += kMostSpans) {
    const int count = static_cast<int>(std::min<size_t>(kMostSpans, filled.size() - k));
    if (places % 8 == 0)  // all begin at multiples of 16 bytes
      copy_in_packs<8>(&filled[k], count, whole, token, into_whole);
    else if (places % 2 == 0)
      copy_in_packs<2>(&filled[k], count, whole, token, into_whole);
    else
      copy_in_packs<1>(&filled[k], count, whole, token, into_whole);
  }
}

template <typename T>
struct Masked {
  const T* x;
  const uint8_t* mask;
  T* y;
  Divider packs;  // of a token

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const int64_t at = int64_t{i} * N;
    store_vec(y + at, mask[packs.quotient(i)] ? Vec<T, N>{} : load_vec<T, N>(x + at));
  }
};

// N neighbouring channels of a level's row, 16 bytes at a time.
template <int N>
MIXPL_DEVICE void load_row(const float* p, float (&row)[N]) {
  constexpr int kStep = N < 4 ? N : 4;
  for (int n = 0; n < N; n += kStep) {
    const Vec<float, kStep> v = load_vec<float, kStep>(p + n);
    for (int j = 0; j < kStep; ++j) row[n + j] = v[j];
  }
}

template <typename T>
struct AddRows {
  const T* x;
  const float* rows;
  T* y;
  Pyramid levels;
  Divider packs, tokens;  // of a token, of an image

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, token = packs.split(k);
    tokens.split(token);
    float row[N];
    load_row(rows + (int64_t{levels.level_of(token)} * packs.divisor() + k) * N, row);
    Vec<T, N> v = load_vec<T, N>(x + int64_t{i} * N);
    for (int n = 0; n < N; ++n) v[n] = T(float(v[n]) + row[n]);
    store_vec(y + int64_t{i} * N, v);
  }
};

// Sums of a chunk's tokens, which lie in one level of one image. `chunks`: of an image.
template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    level_sums_kernel(ChannelBlocks b, Pyramid levels, Pyramid chunks, const T* __restrict__ dy,
                      float* __restrict__ partial) {
  const Place place = place_of(chunks, blockIdx.x);
  ChannelShare s;
  s.lane = threadIdx.x % b.lanes;
  s.channel = (int64_t{blockIdx.y} * b.lanes + s.lane) * N;
  s.begin = levels.first[place.level] + place.cell * b.chunk;
  s.end = levels.first[place.level + 1];
  if (s.begin + b.chunk < s.end) s.end = s.begin + b.chunk;
  const uint32_t row = threadIdx.x / b.lanes;
  s.begin = row < b.rows && s.channel < b.channels ? s.begin + row : s.end;
  dy += place.image * levels.count() * b.channels + s.channel;
  float sum[1][N] = {};
  for (int64_t t = s.begin; t < s.end; t += kPixelsAtOnce * b.rows) {
    Vec<T, N> v[kPixelsAtOnce];
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u)
      if (t + u * b.rows < s.end) v[u] = load_vec<T, N>(dy + (t + u * b.rows) * b.channels);
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u)
      if (t + u * b.rows < s.end)
        for (int n = 0; n < N; ++n) sum[0][n] += float(v[u][n]);
  }
  add_rows(b, s, sum, partial + blockIdx.x * b.channels);
}

// A block for each level and 32 channels: adds the level's chunks of all images.
template <typename Unused = void>
MIXPL_KERNEL __launch_bounds__(kMergeWarps * 32)
    merge_levels_kernel(int64_t images, int64_t channels, Pyramid chunks, const float* partial,
                        float* drows) {
  MIXPL_SHARED(double, of_warps, kMergeWarps * 32);
  const int level = static_cast<int>(blockIdx.x);
  const int64_t channel = int64_t{blockIdx.y} * 32 + lane();
  double sum = 0;
  if (channel < channels)
    for (int64_t image = 0; image < images; ++image)
      for (int64_t k = chunks.first[level] + warp(); k < chunks.first[level + 1]; k += kMergeWarps)
        sum += partial[(image * chunks.count() + k) * channels + channel];
  of_warps[threadIdx.x] = sum;
  sync_block();
  if (warp() > 0 || channel >= channels) return;
  for (int w = 1; w < kMergeWarps; ++w) sum += of_warps[w * 32 + lane()];
  drows[level * channels + channel] = static_cast<float>(sum);
}

}  // namespace

void write_spans(const std::vector<TokenSpan>& spans, Tensor& whole) {
  copy_spans(spans, whole, true);
}

void read_spans(const Tensor& whole, const std::vector<TokenSpan>& spans) {
  copy_spans(spans, whole, false);
}

void mask_tokens(const Tensor& x, const Tensor& mask, Tensor& y) {
  if (x.numel() == 0) return;
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(x.size(2), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(x.numel() / N, Masked<T>{x.data<T>(), mask.data<uint8_t>(), y.data<T>(),
                                                Divider(x.size(2) / N)});
    });
  });
}

void add_level_rows_forward(const Tensor& x, const Tensor& rows, const Pyramid& levels, Tensor& y) {
  if (x.numel() == 0) return;
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(x.size(2), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(x.numel() / N,
                       AddRows<T>{x.data<T>(), rows.data<float>(), y.data<T>(), levels,
                                  Divider(x.size(2) / N), Divider(x.size(1))});
    });
  });
}

void add_level_rows_backward(const Tensor& dy, const Pyramid& levels, Tensor& drows) {
  const int64_t images = dy.size(0), channels = dy.size(2);
  if (drows.numel() == 0) return;
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      ChannelBlocks b(1, images * dy.size(1), channels, N);
      std::vector<int64_t> sizes;
      for (int l = 0; l < levels.levels; ++l)
        sizes.push_back(b.chunk > 0 ? (levels.size(l) + b.chunk - 1) / b.chunk : 0);
      const Pyramid chunks(sizes);
      const int64_t blocks = images * chunks.count();
      const Tensor partial = Tensor::empty({blocks, channels}, DType::f32, dy.device());
      launch(level_sums_kernel<N, T>, dim3(index_of(blocks), b.parts), kChannelThreads, 0, b,
             levels, chunks, dy.data<T>(), partial.data<float>());
      launch(
          merge_levels_kernel<>,
          dim3(static_cast<unsigned>(levels.levels), static_cast<unsigned>((channels + 31) / 32)),
          kMergeWarps * 32, 0, images, channels, chunks, partial.data<float>(),
          drows.data<float>());
    });
  });
}

}  // namespace mixpl::cuda
