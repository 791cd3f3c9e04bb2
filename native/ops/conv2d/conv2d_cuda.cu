#include "ops/conv2d/conv2d.h"

#include <optional>

#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/filters_cuda.h"
#include "ops/conv2d/gemm_levels_cuda.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_output_cuda.h"

namespace mixpl::cuda {
namespace {

// Rows are positions of the output, columns its channels; one product a group.
template <class Config_>
struct Forward {
  using Config = Config_;
  using T = typename Config::T;
  using Result = T;
  using Left = PatchLoader<Config, Config::Tile::kM, Config::kGranule>;
  using Right = MatrixLoader<Config, Order::reduction, Config::Tile::kN, kChunkBytes>;
#if !defined(MIXPL_CUDA_EMULATED)
  using BulkLeft = BulkPatchRows<Config, Config::Tile::kM>;
  using BulkRight = BulkFilterRows<Config, Config::Tile::kN>;
  TensorMap left_map() const { return patch_map(x, Config::Tile::kM); }
  TensorMap right_map() const {
    const uint64_t channels = x.channels, taps = x.down.taps * x.right.taps;
    return box_map(filters, {{channels, 0, kBulkPixels},
                             {taps, 2 * channels, 1},
                             {uint64_t(filters_a_group), 2 * uint64_t(filter_pitch),
                              Config::Tile::kN / Config::Tile::kCluster}});
  }
#endif

  struct Part {
    Patches<T> x;
    const T* filters;
    int filter_pitch;
    Output<T> y;
    int rows, columns, reduction;

    MIXPL_DEVICE Left left(int row, int first) const { return Left(x, row, first); }
    MIXPL_DEVICE Right right(int column, int first) const {
      return Right(filters, columns, filter_pitch, filter_pitch, column, first);
    }
    MIXPL_DEVICE int line(int row) const { return row; }
    MIXPL_DEVICE const Output<T>& output() const { return y; }
#if !defined(MIXPL_CUDA_EMULATED)
    MIXPL_DEVICE BulkLeft bulk_left(int row, int step) const { return BulkLeft(x, row, step); }
    MIXPL_DEVICE BulkRight bulk_right(int column, int step) const {
      return BulkRight(x, column, step);
    }
#endif
  };

  Patches<T> x;
  const T* filters;
  int filter_pitch, filters_a_group;
  Output<T> y;

  MIXPL_DEVICE Part part(const GemmPlace& at) const {
    Part p{x, filters, filter_pitch, y, x.rows(), filters_a_group, x.template terms<Config>()};
    const int first = at.batch * filters_a_group;
    p.x.source += at.batch * x.channels;
    p.filters += int64_t{first} * filter_pitch;
    p.y = y.at_column(first);
    return p;
  }

  static constexpr LevelsAlong kAlong = LevelsAlong::rows;
  struct Level {
    const T *x, *residual;
    T* y;
    int images, height, width, down, right;
  };
  Level level() const {
    return {x.source,         y.residual,       y.to, x.images, x.height, x.width,
            x.down.positions, x.right.positions};
  }
  MIXPL_DEVICE void enter(const Level& level) {
    x.source = level.x;
    x.images = level.images;
    x.height = level.height;
    x.width = level.width;
    x.down.positions = level.down;
    x.right.positions = level.right;
    y.to = level.y;
    y.residual = level.residual;
  }
};

// A convolution of stride 2 across as one of stride 1 over pairs of pixels. Three channels of bf16
// are 6 bytes, which are copied element by element, and waited for; pairs are 12, three words on
// their way by themselves. A stem's sums get 168 terms for 147, some of them zeros.
struct PixelPairs {
  int lead, taps;  // columns of zeros before a filter's, pairs that it meets
  int padding;     // in pairs

  explicit PixelPairs(const ConvSize& z)
      : lead(z.padding % 2), taps((lead + z.s + 1) / 2), padding((z.padding + 1) / 2) {}

  static bool fit(const Tensor& x, const ConvSize& z) {
    return granule_of(x, z.c) < 4 && granule_of(x, 2 * z.c) >= 4 && z.w % 2 == 0 &&
           z.stride % 2 == 0 && z.dilation == 1 && z.groups == 1;
  }
  template <typename T>
  Patches<T> patches(const Tensor& x, const ConvSize& z) const {
    return {x.data<T>(), z.n,     z.h,      z.w / 2,
            2 * z.c,     2 * z.c, z.down(), forward_axis(z.q, taps, z.stride / 2, padding, 1)};
  }
};

template <typename T>
Patches<T> patches_of(const Tensor& x, const ConvSize& z) {
  return {x.data<T>(), z.n, z.h, z.w, z.c * z.groups, z.c, z.down(), z.right()};
}

}  // namespace

void conv2d_forward(const std::vector<Tensor>& xs, const Tensor& weight, const Tensor& bias,
                    const std::vector<Tensor>& residuals, const Conv2dOptions& o,
                    const std::vector<Tensor>& ys) {
  std::vector<ConvSize> sizes;
  std::vector<int64_t> rows;
  int granule = kChunkBytes;
  bool aligned = true, in_pairs = plan::pixel_pairs, bulk = true;
  for (size_t l = 0; l < xs.size(); ++l) {
    const ConvSize& z = sizes.emplace_back(xs[l].shape(), weight.shape(), ys[l].shape(), o);
    rows.push_back(int64_t{z.n} * z.p * z.q);
    granule = std::min(granule, granule_of(xs[l], z.c));
    in_pairs = in_pairs && PixelPairs::fit(xs[l], z);
    bulk &= z.groups == 1 && fits_bulk(z.down(), z.h) && fits_bulk(z.right(), z.w);
    aligned &= granule_of(ys[l], z.k) == kChunkBytes;
    if (!residuals.empty()) aligned &= granule_of(residuals[l], z.k) == kChunkBytes;
  }
  const ConvSize& any = sizes[0];
  const DType type = xs[0].dtype();
  const PixelPairs pairs(any);
  const Tensor filters = in_pairs ? paired_filter_rows(weight, type, pairs.lead, pairs.taps)
                                  : filter_rows(weight, type, any.sum());
  const GemmSize size{any.groups, sum(rows), any.k,
                      in_pairs ? int64_t{any.r} * pairs.taps * 2 * any.c : any.sum()};
  if (in_pairs) granule = 4;
  constexpr int kWorthPadding = 16;
  std::optional<PaddedOutputs> unaligned;
  if (!aligned && granule == kChunkBytes && any.groups == 1 && any.k >= kWorthPadding &&
      residuals.empty() && sum(rows) * any.k < int64_t{1} << 31) {
    unaligned.emplace(ys);
    aligned = true;
  }
  const std::vector<Tensor>& to = unaligned ? unaligned->padded() : ys;
  const GemmOperands<true> operands{granule, bulk};
  with_gemm_config(type, operands, size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    std::vector<Forward<Config>> levels;
    for (size_t l = 0; l < xs.size(); ++l) {
      const ConvSize& z = sizes[l];
      const Patches<T> patches = in_pairs ? pairs.patches<T>(xs[l], z) : patches_of<T>(xs[l], z);
      Output<T> output;
      output.to = to[l].data<T>();
      output.bias = bias.defined() ? bias.data<float>() : nullptr;
      output.residual = residuals.empty() ? nullptr : residuals[l].data<T>();
      output.pitch = to[l].size(3);
      output.relu = o.relu;
      output.aligned = aligned;
      const int64_t pitch = filters.numel() / weight.size(0);
      levels.push_back({patches, filters.data<T>(), static_cast<int>(pitch), z.k, output});
    }
    multiply_levels(levels, rows, grid, xs[0].device());
  });
  if (unaligned) unaligned->unpad();
}

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  if (y.numel() == 0) return;
  std::vector<Tensor> residuals;
  if (residual.defined()) residuals.push_back(residual);
  conv2d_forward({x}, weight, bias, residuals, o, {y});
}

}  // namespace mixpl::cuda
