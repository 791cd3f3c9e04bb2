// A tile is 4x4 outputs; its 6x6 inputs become 36 numbers a channel, and so do the 3x3 weights.
// Then 36 products of matrices (tiles x channels by channels x filters) do what 144 multiplications
// a pair of channels did, in 36. The transforms cost some per cent from 64 channels on.
//
// A group of tiles is transformed by all threads together and stays in the third-level cache. Then
// each thread takes panels of output channels (weights.h): it transforms a panel's
// weights into its second-level cache and multiplies the tiles by them, block by block.
#pragma once

#include <array>

#include "core/parallel.h"
#include "ops/conv2d/winograd/gemm_tile.h"
#include "ops/conv2d/winograd/weights.h"

namespace mixpl::cpu::winograd {
inline namespace MIXPL_SIMD_NAME {

constexpr int64_t kBlock = kLanes == 16 ? 14 : 12;  // tiles that a panel multiplies at once
constexpr int64_t kGroupTiles = 20 * kBlock;        // 3 MB of inputs at 64 channels, 11 MB at 256
constexpr int64_t kSpread = 1024;                   // numbers of a page

struct Problem {
  bool bf16;
  const char* x;
  int64_t n, h, w, c, p, q, k;
  int64_t padding;  // may be negative in a data gradient
  const float* bias;
  const char* residual;
  char* y;
  bool relu;

  int64_t size() const { return bf16 ? 2 : 4; }
  int64_t down() const { return (p + kOut - 1) / kOut; }  // tiles
  int64_t across() const { return (q + kOut - 1) / kOut; }
  int64_t tiles() const { return n * down() * across(); }
  // Numbers of a tile's transformed input; not a power of two, which would fill few cache sets.
  int64_t pitch() const { return (c + kLanes - 1) / kLanes * kLanes + kLanes; }
};

// One tile: inputs [product][tile][channel].
template <bool kBf16>
MIXPL_SIMD void transform_input(const Problem& p, int64_t n, int64_t top, int64_t left, float* to,
                                int64_t product) {
  std::array<const char*, kProducts> pixels;  // null outside the picture
  for (int64_t i = 0; i < kIn; ++i)
    for (int64_t j = 0; j < kIn; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool inside = y >= 0 && y < p.h && x >= 0 && x < p.w;
      pixels[i * kIn + j] = inside ? p.x + ((n * p.h + y) * p.w + x) * p.c * p.size() : nullptr;
    }
  for (int64_t c = 0; c < p.c; c += kLanes, to += kLanes) {
    const Lanes lanes = lanes_of(p.c - c);
    Vector d[kProducts], half[kProducts], v[kProducts];
    for (int i = 0; i < kProducts; ++i) {
      d[i] = pixels[i] ? load<kBf16>(pixels[i] + c * p.size(), lanes) : splat(0);
      // What the next tile reads.
      if (pixels[i]) _mm_prefetch(pixels[i] + (c + kOut * p.c) * p.size(), _MM_HINT_T0);
    }
    for (int j = 0; j < kIn; ++j) pixels_to_products(d + j, kIn, half + j, kIn);
    for (int i = 0; i < kIn; ++i) pixels_to_products(half + kIn * i, 1, v + kIn * i, 1);
    for (int i = 0; i < kProducts; ++i) store(to + i * product, v[i]);
  }
}

// One tile, one vector of output channels from `channel` on.
template <bool kBf16>
MIXPL_SIMD void transform_output(const Problem& p, const float* products, int64_t product,
                                 int64_t n, int64_t top, int64_t left, int64_t channel,
                                 Lanes lanes) {
  Vector m[kProducts], half[kOut * kIn], out[kOut * kOut];
  for (int i = 0; i < kProducts; ++i) m[i] = load(products + i * product);
  for (int j = 0; j < kIn; ++j) products_to_pixels(m + j, kIn, half + j, kIn);
  for (int i = 0; i < kOut; ++i) products_to_pixels(half + kIn * i, 1, out + kOut * i, 1);
  const Vector bias = p.bias ? load(p.bias + channel, lanes) : splat(0);
  const int64_t rows = std::min<int64_t>(kOut, p.p - top);
  const int64_t columns = std::min<int64_t>(kOut, p.q - left);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t at = (((n * p.p + top + i) * p.q + left + j) * p.k + channel) * p.size();
      Vector y = add(out[i * kOut + j], bias);
      if (p.residual) y = add(y, load<kBf16>(p.residual + at, lanes));
      if (p.relu) y = max(splat(0), y);  // in this order NaN stays NaN
      store<kBf16>(p.y + at, lanes, y);
    }
}

// Tiles worked on together, as blocks of at most kBlock: inputs [block][product][tile][channel].
class Group {
 public:
  Group(const Problem& problem, int64_t most_tiles)
      : p_(problem),
        inputs_(Tensor::empty({blocks(most_tiles) * kProducts * kBlock * problem.pitch()},
                              DType::f32)) {}

  void load(int64_t first, int64_t last) {
    first_ = first, tiles_ = last - first;
    parallel_for(count(), 1, [&](int64_t block) {
      for (int64_t i = begin(block); i < begin(block + 1); ++i)
        at(i, [&](int64_t n, int64_t top, int64_t left) {
          (p_.bf16 ? transform_input<true>
                   : transform_input<false>)(p_, n, top - p_.padding, left - p_.padding,
                                             inputs(block, 0) + (i - begin(block)) * p_.pitch(),
                                             kBlock * p_.pitch());
        });
    });
  }
  static int64_t blocks(int64_t tiles) { return (tiles + kBlock - 1) / kBlock; }
  int64_t count() const { return blocks(tiles_); }
  int64_t begin(int64_t block) const { return tiles_ * block / count(); }
  float* inputs(int64_t block, int64_t product) const {
    return inputs_.data<float>() + (block * kProducts + product) * kBlock * p_.pitch();
  }
  /// f(image, first output row, first output column) of tile i.
  template <typename F>
  void at(int64_t i, F&& f) const {
    const int64_t across = p_.across(), down = p_.down(), tile = first_ + i;
    f(tile / across / down, tile / across % down * kOut, tile % across * kOut);
  }

 private:
  const Problem& p_;
  Tensor inputs_;
  int64_t first_ = 0, tiles_ = 0;
};

// What one thread does: panels of output channels for blocks of a group.
class Worker {
 public:
  Worker(const Problem& problem, const Tensor& weight, bool turned)
      : p_(problem),
        layout_(problem.k),
        weight_(weight),
        turned_(turned),
        factors_(Tensor::empty({kProducts * (p_.c * 3 * kLanes + kSpread)}, DType::f32)),
        products_(Tensor::empty({kProducts * kBlock * 3 * kLanes}, DType::f32)) {}

  void run(const Group& group, int64_t panel, int64_t first_block, int64_t last_block) {
    vectors_ = layout_.of(panel);
    // Planes are no power of two apart, or all would fill the same cache sets.
    plane_ = p_.c * vectors_ * kLanes + kSpread - kLanes;
    transform_weights(weight_, turned_, p_.bf16, panel, factors_.data<float>(), plane_);
    for (int64_t block = first_block; block < last_block; ++block) {
      const int64_t begin = group.begin(block), tiles = group.begin(block + 1) - begin;
      multiply(group, block, tiles);
      for (int64_t i = 0; i < tiles; ++i)
        group.at(begin + i, [&](int64_t n, int64_t top, int64_t left) {
          for (int v = 0; v < vectors_; ++v) {
            const Lanes lanes = layout_.lanes(panel, v);
            (p_.bf16
                 ? transform_output<true>
                 : transform_output<false>)(p_,
                                            products_.data<float>() + (i * vectors_ + v) * kLanes,
                                            kBlock * vectors_ * kLanes, n, top, left,
                                            (2 * panel + v) * kLanes, lanes);
          }
        });
    }
  }

 private:
  void multiply(const Group& group, int64_t block, int64_t tiles) {
    const int64_t most = most_tile_rows(vectors_), parts = (tiles + most - 1) / most;
    GemmTile tile{};
    tile.depth = p_.c;
    tile.x_row = p_.pitch(), tile.x_step = 1;
    tile.w_step = vectors_ * kLanes;
    for (int64_t j = 0; j < kProducts; ++j) {
      tile.w = factors_.data<float>() + j * plane_;
      tile.next_x = group.inputs(block, j + 1);
      for (int64_t i = 0; i < parts; ++i) {
        const int64_t begin = tiles * i / parts, end = tiles * (i + 1) / parts;
        tile.x = group.inputs(block, j) + begin * p_.pitch();
        tile.y = products_.data<float>() + (j * kBlock + begin) * vectors_ * kLanes;
        gemm_tile(end - begin, vectors_)(tile);
      }
    }
  }

  const Problem& p_;
  PanelLayout layout_;
  const Tensor& weight_;
  bool turned_;
  int vectors_ = 0;
  int64_t plane_ = 0;
  Tensor factors_, products_;
};

inline void run(const Problem& p, const Tensor& weight, bool turned) {
  const int64_t count = PanelLayout(p.k).count(), tiles = p.tiles(), threads = num_threads();
  const int64_t groups = (tiles + kGroupTiles - 1) / kGroupTiles;
  Group group(p, (tiles + groups - 1) / groups);
  for (int64_t i = 0; i < groups; ++i) {
    group.load(tiles * i / groups, tiles * (i + 1) / groups);
    // Few panels are shared by threads, each with some of the blocks.
    const bool even = count % threads == 0 || count >= 8 * threads;
    const int64_t shares = even ? 1 : std::min(threads, group.count());
    parallel_chunks(count * shares, 1, [&](int64_t begin, int64_t end) {
      Worker worker(p, weight, turned);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t share = item % shares;
        worker.run(group, item / shares, group.count() * share / shares,
                   group.count() * (share + 1) / shares);
      }
    });
  }
}

inline Problem problem(const Tensor& x, const Tensor& y, int64_t padding) {
  Problem p{};
  p.bf16 = x.dtype() == DType::bf16;
  p.x = static_cast<const char*>(x.raw());
  p.n = x.size(0), p.h = x.size(1), p.w = x.size(2), p.c = x.size(3);
  p.p = y.size(1), p.q = y.size(2), p.k = y.size(3);
  p.padding = padding;
  p.y = static_cast<char*>(y.raw());
  return p;
}

inline void forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  Problem p = problem(x, y, o.padding);
  p.bias = bias.defined() ? bias.data<float>() : nullptr;
  p.residual = residual.defined() ? static_cast<const char*>(residual.raw()) : nullptr;
  p.relu = o.relu;
  run(p, weight, false);
}

// The data gradient is the convolution of dy by the kernel turned by 180 degrees, its channels
// swapped.
inline void backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx) {
  run(problem(dy, dx, 2 - o.padding), weight, true);
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::winograd
