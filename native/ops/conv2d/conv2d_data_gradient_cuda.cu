#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/filters_cuda.h"
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

  struct Part {
    Patches<T> dy;
    const T* filters;  // [K, R, S, pitch]
    int kernel_h, kernel_w, filter_pitch;
    Output<T> dx;
    int height, width;  // of dx
    int rows, columns, reduction;

    MIXPL_DEVICE Left left(int row, int first) const { return Left(dy, row, first); }
    MIXPL_DEVICE Right right(int column, int first) const {
      return Right(filters, kernel_h, kernel_w, filter_pitch, dy.channels, dy.down, dy.right, first,
                   column);
    }
    MIXPL_DEVICE void store(int row, int column, float (&sums)[kChunk<T>]) const {
      int64_t pixel = row;
      if (dy.down.out_every > 1) {
        const Digits at = dy.row_radix().digits(row);
        const int y = dy.down.out_first + at.middle * dy.down.out_every;
        const int x = dy.right.out_first + at.low * dy.right.out_every;
        pixel = (static_cast<int64_t>(at.high) * height + y) * width + x;
      }
      dx.store(pixel, column, columns, sums);
    }
  };

  Part whole;  // what all products have in common
  int stride, padding, dilation;
  int residues_down, residues_right;

  MIXPL_DEVICE Part part(int batch) const {
    const int group = batch / residues_right / residues_down;
    Part p = whole;
    p.dy.source += group * p.dy.channels;
    p.dy.down = gradient_axis(p.height, p.kernel_h, stride, padding, dilation,
                              batch / residues_right % residues_down);
    p.dy.right =
        gradient_axis(p.width, p.kernel_w, stride, padding, dilation, batch % residues_right);
    p.filters += int64_t{group} * p.dy.channels * p.kernel_h * p.kernel_w * p.filter_pitch;
    p.dx = p.dx.at_column(group * p.columns);
    p.rows = p.dy.rows();
    p.reduction = p.dy.columns();
    return p;
  }
};

}  // namespace

void conv2d_backward_data(const Tensor& dy, const Tensor& weight, const Conv2dOptions& o,
                          Tensor& dx) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0) return memset_device(dx.raw(), 0, dx.nbytes());
  const ConvSize z(dx.shape(), weight.shape(), dy.shape(), o);
  const Tensor filters = filter_rows(weight, dy.dtype(), z.c);
  const int down = std::min(z.stride, z.h), right = std::min(z.stride, z.w);
  // The product of residue 0 has the most rows; the longest sum is about the average's double.
  const int64_t rows = int64_t{z.n} * plan::ceil_div(z.h, z.stride) * plan::ceil_div(z.w, z.stride);
  const int64_t terms = z.k * plan::ceil_div(z.r, z.stride) * plan::ceil_div(z.s, z.stride);
  const GemmSize size{int64_t{z.groups} * down * right, rows, z.c, terms};
  with_gemm_config(dy.dtype(), granule_of(dy, z.k), size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    typename DataGradient<Config>::Part whole{};
    whole.dy = {dy.data<T>(), z.n, z.p, z.q, z.k * z.groups, z.k};
    whole.filters = filters.data<T>();
    whole.kernel_h = z.r;
    whole.kernel_w = z.s;
    whole.filter_pitch = static_cast<int>(filters.numel() / (weight.size(0) * z.r * z.s));
    whole.dx = {
        .to = dx.data<T>(), .pitch = dx.size(3), .aligned = granule_of(dx, z.c) == kChunkBytes};
    whole.height = z.h;
    whole.width = z.w;
    whole.columns = z.c;
    const DataGradient<Config> problem{whole, z.stride, z.padding, z.dilation, down, right};
    multiply(problem, grid, dy.device());
  });
}

}  // namespace mixpl::cuda
