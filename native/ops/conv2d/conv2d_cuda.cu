#include "ops/conv2d/conv2d.h"

#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/filters_cuda.h"
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
    MIXPL_DEVICE void store(int row, int column, float (&sums)[kChunk<T>]) const {
      y.store(row, column, columns, sums);
    }
  };

  Patches<T> x;
  const T* filters;
  int filter_pitch, filters_a_group;
  Output<T> y;

  MIXPL_DEVICE Part part(int group) const {
    Part p{x, filters, filter_pitch, y, x.rows(), filters_a_group, x.columns()};
    const int first = group * filters_a_group;
    p.x.source += group * x.channels;
    p.filters += int64_t{first} * filter_pitch;
    p.y = y.at_column(first);
    return p;
  }
};

}  // namespace

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& residual, const Conv2dOptions& o, Tensor& y) {
  if (y.numel() == 0) return;
  const ConvSize z(x.shape(), weight.shape(), y.shape(), o);
  const Tensor filters = filter_rows(weight, x.dtype(), z.sum());
  const GemmSize size{z.groups, int64_t{z.n} * z.p * z.q, z.k, z.sum()};
  with_gemm_config(x.dtype(), granule_of(x, z.c), size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    const Patches<T> patches{x.data<T>(), z.n, z.h, z.w, z.c * z.groups, z.c, z.down(), z.right()};
    const Output<T> output{y.data<T>(),
                           bias.defined() ? bias.data<float>() : nullptr,
                           residual.defined() ? residual.data<T>() : nullptr,
                           y.size(3),
                           o.relu,
                           granule_of(y, z.k) == kChunkBytes &&
                               (!residual.defined() || granule_of(residual, z.k) == kChunkBytes)};
    const Forward<Config> problem{patches, filters.data<T>(),
                                  static_cast<int>(filters.numel() / weight.size(0)), z.k, output};
    multiply(problem, grid, x.device());
  });
}

}  // namespace mixpl::cuda
