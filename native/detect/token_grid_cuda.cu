#include "core/cuda/packs.h"
#include "detect/token_grid.h"
#include "detect/token_grid_math.h"

namespace mixpl::cuda {
namespace {

template <typename View>
struct AtPlace {
  View view;
  MIXPL_DEVICE void operator()(int64_t i) const { view(place_of(view.grid.tokens, i)); }
};

template <typename View>
void for_tokens(int64_t images, const View& view) {
  for_each(images * view.grid.tokens.count(), AtPlace<View>{view});
}

template <typename T>
MIXPL_DEVICE void store_pair(T* to, float angle) {
  Vec<T, 2> pair;
  pair[0] = T(sinf(angle));
  pair[1] = T(cosf(angle));
  store_vec(to, pair);
}

// The i-th pair of sine and cosine of all lines of all images.
template <typename T>
struct Lines {
  SineView view;
  Divider pairs;
  T* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    auto m = static_cast<uint32_t>(i);
    const uint32_t line = pairs.split(m);
    store_pair(out + 2 * i, view.angle(place_of(view.lines, line)) *
                                sine_frequency(m, view.pairs, view.log2_temperature));
  }
};

// Each token's halves, copied from its row's line and its column's.
template <typename T>
struct Expand {
  const T* lines;
  T* out;
  Pyramid tokens;
  uint32_t width[kMostMaps], first_line[2 * kMostMaps], lines_of_image;
  Divider packs, of_image;  // of a half; halves of an image's tokens

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, half = packs.split(k);
    const uint32_t image = of_image.split(half), token = half / 2;
    const int level = tokens.level_of(token);
    const uint32_t cell = token - static_cast<uint32_t>(tokens.first[level]);
    const uint32_t line = half % 2 ? first_line[2 * level + 1] + cell % width[level]
                                   : first_line[2 * level] + cell / width[level];
    const int64_t at = (int64_t{image} * lines_of_image + line) * packs.divisor() + k;
    store_vec(out + int64_t{i} * N, load_vec<T, N>(lines + at * N));
  }
};

// The i-th pair of all encodings.
template <typename T>
struct Coordinates {
  CoordinateView view;
  Divider pairs;
  T* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    auto m = static_cast<uint32_t>(i);
    const uint32_t number = pairs.split(m);
    store_pair(out + 2 * i,
               view.angle(number) * sine_frequency(m, view.pairs, view.log2_temperature));
  }
};

constexpr int kSlopeWarps = 8;

// A warp for each encoding.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kSlopeWarps * 32)
    coordinate_slopes_kernel(CoordinateView view, const T* __restrict__ dout,
                             float* __restrict__ dboxes) {
  const int64_t i = int64_t{blockIdx.x} * kSlopeWarps + warp();
  if (i >= view.count()) return;
  const float angle = view.angle(i);
  float sum = 0;
  for (int64_t m = lane(); m < view.pairs; m += 32) {
    const Vec<T, 2> d = load_vec<T, 2>(dout + 2 * (i * view.pairs + m));
    const float frequency = sine_frequency(m, view.pairs, view.log2_temperature),
                at = angle * frequency;
    sum += frequency * (float(d[0]) * cosf(at) - float(d[1]) * sinf(at));
  }
  sum = warp_sum(sum);
  if (lane() == 0) dboxes[view.source(i)] = sum * view.ratio(i) * kTwoPi;
}

}  // namespace

void mark_padding(int64_t images, const PaddingView& view) { for_tokens(images, view); }
void place_references(int64_t images, const ReferenceView& view) { for_tokens(images, view); }
void make_proposals(int64_t images, const ProposalView& view) { for_tokens(images, view); }

void encode_places(const SineView& view, Tensor& lines, Tensor& out) {
  const int64_t half = 2 * view.pairs;
  if (view.images == 0) return;
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(index_of(view.images * view.lines.count() * view.pairs),
             Lines<T>{view, Divider(view.pairs), lines.data<T>()});
    with_packs<T>(half, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      Expand<T> expand{lines.data<T>(),
                       out.data<T>(),
                       view.tokens,
                       {},
                       {},
                       index_of(view.lines.count()),
                       Divider(half / N),
                       Divider(2 * view.tokens.count())};
      for (int l = 0; l < view.tokens.levels; ++l)
        expand.width[l] = static_cast<uint32_t>(view.width[l]);
      for (int l = 0; l < view.lines.levels; ++l)
        expand.first_line[l] = index_of(view.lines.first[l]);
      for_each_pack<N>(out.numel() / N, expand);
    });
  });
}

void encode_coordinates(const CoordinateView& view, Tensor& out) {
  dispatch_floating(out.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(index_of(view.count() * view.pairs),
             Coordinates<T>{view, Divider(view.pairs), out.data<T>()});
  });
}

void encode_coordinates_backward(const CoordinateView& view, const Tensor& dout, Tensor& dboxes) {
  dispatch_floating(dout.dtype(), [&](auto tag) {
    using T = decltype(tag);
    launch(coordinate_slopes_kernel<T>, index_of((view.count() + kSlopeWarps - 1) / kSlopeWarps),
           kSlopeWarps * 32, 0, view, dout.data<T>(), dboxes.data<float>());
  });
}

}  // namespace mixpl::cuda
