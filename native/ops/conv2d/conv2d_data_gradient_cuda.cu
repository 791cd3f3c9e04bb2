#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/filters_cuda.h"
#include "ops/conv2d/gemm_levels_cuda.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_output_cuda.h"

namespace mixpl::cuda {
namespace {

// Rows are positions of the input, columns its channels, sums run over taps and filters. The
// positions are sorted by their residue by the stride, down and right: those of one residue gather
// the same taps, and make one product (a group each), so that no tap is multiplied in vain.
template <class Config_>
struct DataGradient {
  using Config = Config_;
  using T = typename Config::T;
  using Result = T;
  using Left = PatchLoader<Config, Config::Tile::kM, Config::kGranule>;
  using Right = FilterLoader<Config, Config::Tile::kN>;
#if !defined(MIXPL_CUDA_EMULATED)
  using BulkLeft = BulkPatchRows<Config, Config::Tile::kM>;
  using BulkRight = BulkFilterColumns<Config, Config::Tile::kN>;
  TensorMap left_map() const { return patch_map(whole.dy, Config::Tile::kM); }
  TensorMap right_map() const {
    const uint64_t pitch = whole.filter_pitch, taps = whole.kernel_h * whole.kernel_w;
    return box_map(whole.filters, {{pitch, 0, kBulkPixels},
                                   {taps, 2 * pitch, 1},
                                   {uint64_t(whole.dy.channels), 2 * pitch * taps,
                                    BulkShare<Config, Config::Tile::kN>::kTerms}});
  }
#endif

  struct Part {
    Patches<T> dy;
    const T* filters;  // [K, R, S, pitch]
    int kernel_h, kernel_w, filter_pitch;
    Output<T, true> dx;
    int height, width;  // of dx
    int rows, columns, reduction;

    MIXPL_DEVICE Left left(int row, int first) const { return Left(dy, row, first); }
    MIXPL_DEVICE Right right(int column, int first) const {
      return Right(filters, kernel_h, kernel_w, filter_pitch, dy.channels, dy.down, dy.right, first,
                   column);
    }
    MIXPL_DEVICE int line(int row) const {
      if (dy.down.out_every == 1) return row;
      const Digits at = dy.row_radix().digits(row);
      const int y = dy.down.out_first + at.middle * dy.down.out_every;
      const int x = dy.right.out_first + at.low * dy.right.out_every;
      return (at.high * height + y) * width + x;
    }
    MIXPL_DEVICE const Output<T, true>& output() const { return dx; }
#if !defined(MIXPL_CUDA_EMULATED)
    MIXPL_DEVICE BulkLeft bulk_left(int row, int step) const { return BulkLeft(dy, row, step); }
    MIXPL_DEVICE BulkRight bulk_right(int column, int step) const {
      return BulkRight(dy, column, step);
    }
#endif
  };

  Part whole;  // what all products have in common; the axes of residue 0
  int stride, padding, dilation;
  int residues_down, residues_right;

  MIXPL_DEVICE Part part(const GemmPlace& at) const {
    int group = at.batch;
    Part p = whole;
    if (stride > 1) {  // otherwise the axes are there already: they take longer than a step
      group = at.batch / residues_right / residues_down;
      p.dy.down = gradient_axis(p.height, p.kernel_h, stride, padding, dilation,
                                at.batch / residues_right % residues_down);
      p.dy.right =
          gradient_axis(p.width, p.kernel_w, stride, padding, dilation, at.batch % residues_right);
    }
    p.dy.source += group * p.dy.channels;
    p.filters += int64_t{group} * p.dy.channels * p.kernel_h * p.kernel_w * p.filter_pitch;
    p.dx = p.dx.at_column(group * p.columns);
    p.rows = p.dy.rows();
    p.reduction = p.dy.template terms<Config>();
    return p;
  }

  static constexpr LevelsAlong kAlong = LevelsAlong::rows;
  struct Level {
    const T* dy;
    T* dx;
    const T *gathered, *mask;
    int images, dy_height, dy_width, dx_height, dx_width;
  };
  Level level() const {
    return {whole.dy.source, whole.dx.to,    whole.dx.residual, whole.dx.mask, whole.dy.images,
            whole.dy.height, whole.dy.width, whole.height,      whole.width};
  }
  MIXPL_DEVICE void enter(const Level& level) {
    whole.dy.source = level.dy;
    whole.dy.images = level.images;
    whole.dy.height = level.dy_height;
    whole.dy.width = level.dy_width;
    whole.dx.to = level.dx;
    whole.dx.residual = level.gathered;
    whole.dx.mask = level.mask;
    whole.height = level.dx_height;
    whole.width = level.dx_width;
    // With stride 1; others get axes of their own in part().
    whole.dy.down.positions = level.dx_height;
    whole.dy.right.positions = level.dx_width;
  }
};

// The product of residue 0 has the most rows.
int64_t most_rows(const ConvSize& z) {
  return int64_t{z.n} * plan::ceil_div(z.h, z.stride) * plan::ceil_div(z.w, z.stride);
}

}  // namespace

bool masks_data_gradients() { return plan::fused_masks; }
bool takes_bf16_filters(int64_t, const Conv2dOptions&) { return false; }

void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx, bool add, const Tensor& mask) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) {
    Tensor no_sums;
    if (!add) return memset_device(dx.raw(), 0, dx.nbytes());
    if (mask.defined()) mask_and_column_sum(mask, dx, dx, no_sums);
    return;
  }
  conv2d_backward_data(std::vector{dy}, weight, o, {dx}, {add}, {mask});
}

void conv2d_backward_data(const std::vector<Tensor>& given, const Tensor& weight,
                          const Conv2dOptions& o, const std::vector<Tensor>& dxs,
                          const std::vector<bool>& add, const std::vector<Tensor>& masks) {
  const std::vector<Tensor> dys = pad_gradient(given, weight.shape(), o);
  // Channels of zeros meet filters of zeros.
  const int64_t zeros = dys[0].size(3) - weight.size(0);
  const Shape shape{dys[0].size(3), weight.size(1), weight.size(2), weight.size(3)};
  std::vector<ConvSize> sizes;
  std::vector<int64_t> rows;
  int down = 1, right = 1, granule = kChunkBytes;
  bool aligned = true, bulk = true;
  const auto axis = [](const ConvSize& z, int size, int taps) {
    return gradient_axis(size, taps, z.stride, z.padding, z.dilation, 0);
  };
  for (size_t l = 0; l < dys.size(); ++l) {
    const ConvSize& z = sizes.emplace_back(dxs[l].shape(), shape, dys[l].shape(), o);
    rows.push_back(most_rows(z));
    down = std::max(down, std::min(z.stride, z.h));  // a smaller map has no rows of some residues
    right = std::max(right, std::min(z.stride, z.w));
    granule = std::min(granule, granule_of(dys[l], z.k));
    aligned &= granule_of(dxs[l], z.c) == kChunkBytes;
    if (masks[l].defined()) aligned &= granule_of(masks[l], z.c) == kChunkBytes;
    bulk &= z.groups == 1 && z.stride == 1 && fits_bulk(axis(z, z.h, z.r), z.p) &&
            fits_bulk(axis(z, z.w, z.s), z.q);
  }
  const ConvSize& any = sizes[0];
  const Tensor filters = filter_rows(weight, dys[0].dtype(), any.c, zeros * any.r * any.s);
  // The longest sum is about the average's double.
  const int64_t terms =
      any.k * plan::ceil_div(any.r, any.stride) * plan::ceil_div(any.s, any.stride);
  const GemmSize size{int64_t{any.groups} * down * right, sum(rows), any.c, terms};
  const GemmOperands<true> operands{granule, bulk};
  with_gemm_config(dys[0].dtype(), operands, size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    std::vector<DataGradient<Config>> levels;
    for (size_t l = 0; l < dys.size(); ++l) {
      const ConvSize& z = sizes[l];
      typename DataGradient<Config>::Part whole{};
      whole.dy = {dys[l].data<T>(), z.n, z.p, z.q, z.k * z.groups, z.k, axis(z, z.h, z.r),
                  axis(z, z.w, z.s)};
      whole.filters = filters.data<T>();
      whole.kernel_h = z.r;
      whole.kernel_w = z.s;
      whole.filter_pitch = static_cast<int>(filters.numel() / (shape[0] * z.r * z.s));
      whole.dx.to = dxs[l].data<T>();
      whole.dx.residual = add[l] ? whole.dx.to : nullptr;
      whole.dx.mask = masks[l].defined() ? masks[l].data<T>() : nullptr;
      whole.dx.pitch = dxs[l].size(3);
      whole.dx.aligned = aligned;
      whole.height = z.h;
      whole.width = z.w;
      whole.columns = z.c;
      levels.push_back({whole, z.stride, z.padding, z.dilation, down, right});
    }
    multiply_levels(levels, rows, grid, dys[0].device());
  });
}

}  // namespace mixpl::cuda
