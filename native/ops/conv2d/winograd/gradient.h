// Where a tile of 4x4 numbers of dy meets its 6x6 inputs, 36 products of transformed numbers make
// the 9 taps of dW, instead of 144. Summed over tiles that is, for each of the 36, a product of
// matrices: inputs by tiles times tiles by filters. Groups of tiles are transformed by all threads
// together; then each thread adds to the sums of some products and filters, group after group in
// order.
#pragma once

#include <array>

#include "core/parallel.h"
#include "ops/conv2d/winograd/gemm_tile.h"
#include "ops/conv2d/winograd/weights.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

constexpr int64_t kGradientTiles = 140;  // 11 MB of x and dy at 256 channels, third-level cache
constexpr int64_t kSlicePanels =
    128 / kLanes;  // of filters at a time: 9 MB of sums at 256 channels

// An activation, N H W C, as tiles of it are transformed.
struct Image {
  bool bf16;
  const char* data;
  int64_t h, w, c;

  explicit Image(const Tensor& t)
      : bf16(t.dtype() == DType::bf16),
        data(static_cast<const char*>(t.raw())),
        h(t.size(1)),
        w(t.size(2)),
        c(t.size(3)) {}
  int64_t size() const { return bf16 ? 2 : 4; }
  // Numbers of a transformed pixel, whole panels; not a power of two apart.
  int64_t pitch() const { return (c + kLanes - 1) / kLanes * kLanes + kLanes; }
};

// A tile of kSide x kSide pixels, zeros outside the picture: out[product][channel].
template <bool kBf16, int kSide>
MIXPL_SIMD void transform(const Image& image, int64_t n, int64_t top, int64_t left, float* out,
                          int64_t product) {
  std::array<const char*, kSide * kSide> pixels;  // null outside
  for (int64_t i = 0; i < kSide; ++i)
    for (int64_t j = 0; j < kSide; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool inside = y >= 0 && y < image.h && x >= 0 && x < image.w;
      pixels[i * kSide + j] =
          inside ? image.data + ((n * image.h + y) * image.w + x) * image.c * image.size()
                 : nullptr;
    }
  for (int64_t c = 0; c < image.c; c += kLanes, out += kLanes) {
    const Lanes lanes = lanes_of(image.c - c);
    Vector d[kSide * kSide], half[kIn * kSide], v[kProducts];
    for (int i = 0; i < kSide * kSide; ++i) {
      d[i] = pixels[i] ? load<kBf16>(pixels[i] + c * image.size(), lanes) : splat(0);
      // What the next tile reads.
      if (pixels[i]) _mm_prefetch(pixels[i] + (c + kOut * image.c) * image.size(), _MM_HINT_T0);
    }
    for (int j = 0; j < kSide; ++j)
      if constexpr (kSide == kIn)
        pixels_to_products(d + j, kSide, half + j, kSide);
      else
        gradient_to_factors(d + j, kSide, half + j, kSide);
    for (int i = 0; i < kIn; ++i)
      if constexpr (kSide == kIn)
        pixels_to_products(half + kSide * i, 1, v + kIn * i, 1);
      else
        gradient_to_factors(half + kSide * i, 1, v + kIn * i, 1);
    for (int i = 0; i < kProducts; ++i) store(out + i * product, v[i]);
  }
}

// Sums [product][panel][input channel][vector][lane] of the panels from `first` on.
class Sums {
 public:
  Sums(const PanelLayout& layout, int64_t first, int64_t last, int64_t c)
      : layout_(layout), first_(first), c_(c) {
    const int64_t end = last == layout.count() ? layout.vectors : 2 * last;
    product_ = (end - 2 * first) * c * kLanes;
    storage_ = Tensor::empty({kProducts * product_}, DType::f32);
  }
  float* of(int64_t product, int64_t panel) const {
    return storage_.data<float>() + product * product_ + 2 * (panel - first_) * c_ * kLanes;
  }

  // One vector of filters, 16 input channels, to dW [K, 3, 3, C].
  MIXPL_SIMD void write(int64_t panel, int64_t vector, int64_t channel, float* dw) const {
    const int64_t step = layout_.of(panel) * kLanes, filter = (2 * panel + vector) * kLanes;
    const int64_t channels = std::min(kLanes, c_ - channel);
    Vector taps[9][kLanes];
    for (int64_t i = 0; i < channels; ++i) {
      Vector m[kProducts], half[18], g[9];
      for (int64_t j = 0; j < kProducts; ++j)
        m[j] = load(of(j, panel) + (channel + i) * step + vector * kLanes);
      for (int j = 0; j < kIn; ++j) products_to_weights(m + j, kIn, half + j, kIn);
      for (int r = 0; r < 3; ++r) products_to_weights(half + kIn * r, 1, g + 3 * r, 1);
      for (int tap = 0; tap < 9; ++tap) taps[tap][i] = g[tap];
    }
    for (int64_t tap = 0; tap < 9; ++tap) {
      for (int64_t i = channels; i < kLanes; ++i) taps[tap][i] = splat(0);
      transpose(taps[tap]);
      for (int64_t k = 0; k < std::min(kLanes, layout_.channels - filter); ++k)
        store(dw + ((filter + k) * 9 + tap) * c_ + channel, lanes_of(channels), taps[tap][k]);
    }
  }

 private:
  const PanelLayout& layout_;
  int64_t first_, c_, product_;
  Tensor storage_;
};

// Adds what `tiles` tiles give for one product and panel.
inline void multiply(const float* x, int64_t x_pitch, const float* dy, int64_t dy_pitch,
                     int64_t tiles, int64_t channels, int vectors, bool add, float* sums) {
  const int64_t most = most_tile_rows(vectors), parts = (channels + most - 1) / most;
  GemmTile tile{};
  tile.x_row = 1, tile.x_step = x_pitch;
  tile.depth = tiles;
  tile.w = dy, tile.w_step = dy_pitch;
  tile.add = add;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = channels * i / parts, end = channels * (i + 1) / parts;
    tile.x = tile.next_x = x + begin;
    tile.y = sums + begin * vectors * kLanes;
    gemm_tile(end - begin, vectors)(tile);
  }
}

inline void backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight) {
  const Image in(x), out(dy);
  const PanelLayout layout(out.c);
  const int64_t down = (out.h + kOut - 1) / kOut, across = (out.w + kOut - 1) / kOut;
  const int64_t tiles = x.size(0) * down * across;
  const int64_t groups = (tiles + kGradientTiles - 1) / kGradientTiles,
                most = (tiles + groups - 1) / groups;
  const Tensor inputs = Tensor::empty({kProducts * most * in.pitch()}, DType::f32);
  const Tensor gradients = Tensor::empty({kProducts * most * out.pitch()}, DType::f32);
  const int64_t slices = (layout.count() + kSlicePanels - 1) / kSlicePanels;
  for (int64_t slice = 0; slice < slices; ++slice) {
    const int64_t first = layout.count() * slice / slices;
    const int64_t panels = layout.count() * (slice + 1) / slices - first;
    const Sums sums(layout, first, first + panels, in.c);
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t begin = tiles * group / groups, count = tiles * (group + 1) / groups - begin;
      parallel_for(count, 4, [&](int64_t i) {
        const int64_t tile = begin + i, n = tile / across / down;
        const int64_t top = tile / across % down * kOut, left = tile % across * kOut;
        (in.bf16 ? transform<true, kIn>
                 : transform<false, kIn>)(in, n, top - o.padding, left - o.padding,
                                          inputs.data<float>() + i * in.pitch(), most * in.pitch());
        (out.bf16 ? transform<true, kOut>
                  : transform<false, kOut>)(out, n, top, left,
                                            gradients.data<float>() + i * out.pitch(),
                                            most * out.pitch());
      });
      parallel_for(kProducts * panels, 1, [&](int64_t i) {
        const int64_t product = i / panels, panel = first + i % panels;
        multiply(inputs.data<float>() + product * most * in.pitch(), in.pitch(),
                 gradients.data<float>() + product * most * out.pitch() + panel * 2 * kLanes,
                 out.pitch(), count, in.c, layout.of(panel), group > 0, sums.of(product, panel));
      });
    }
    const int64_t blocks = (in.c + kLanes - 1) / kLanes;
    parallel_for(panels * blocks, 1, [&](int64_t i) {
      const int64_t panel = first + i / blocks;
      for (int64_t v = 0; v < layout.of(panel); ++v)
        sums.write(panel, v, i % blocks * kLanes, dweight.data<float>());
    });
  }
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
