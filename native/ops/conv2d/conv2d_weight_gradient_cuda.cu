#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_output_cuda.h"

namespace mixpl::cuda {
namespace {

// Rows are filters, columns taps and channels, sums run over positions of the output; one product a
// group. The result is f32.
template <class Config_>
struct WeightGradient {
  using Config = Config_;
  using T = typename Config::T;
  using Result = float;
  using Left = MatrixLoader<Config, Order::result, Config::Tile::kM, Config::kGranule>;
  using Right = PatchColumnLoader<Config, Config::Tile::kN, Config::kGranule>;

  struct Part {
    Patches<T> x;
    const T* dy;
    int dy_pitch;
    Output<float> dweight;
    int rows, columns, reduction;

    MIXPL_DEVICE Left left(int row, int first) const {
      return Left(dy, reduction, rows, dy_pitch, first, row);
    }
    MIXPL_DEVICE Right right(int column, int first) const { return Right(x, first, column); }
    MIXPL_DEVICE void store(int row, int column, float (&sums)[kChunk<float>]) const {
      dweight.store(row, column, columns, sums);
    }
  };

  Patches<T> x;
  const T* dy;
  int filters_a_group, groups;
  Output<float> dweight;

  MIXPL_DEVICE Part part(int group) const {
    Part p{x, dy, filters_a_group * groups, dweight, filters_a_group, x.columns(), x.rows()};
    p.x.source += group * x.channels;
    p.dy += group * filters_a_group;
    p.dweight.to += group * filters_a_group * dweight.pitch;
    return p;
  }
};

}  // namespace

void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight) {
  if (dweight.numel() == 0) return;
  if (dy.numel() == 0 || x.numel() == 0) return memset_device(dweight.raw(), 0, dweight.nbytes());
  const ConvSize z(x.shape(), dweight.shape(), dy.shape(), o);
  const GemmSize size{z.groups, z.k, z.sum(), int64_t{z.n} * z.p * z.q};
  const int granule = std::min(granule_of(x, z.c), granule_of(dy, z.k));
  with_gemm_config(x.dtype(), granule, size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    const Patches<T> patches{x.data<T>(), z.n, z.h, z.w, z.c * z.groups, z.c, z.down(), z.right()};
    const Output<float> output{.to = dweight.data<float>(),
                               .pitch = z.sum(),
                               .aligned = granule_of(dweight, z.sum()) == kChunkBytes};
    const WeightGradient<Config> problem{patches, dy.data<T>(), z.k, z.groups, output};
    multiply(problem, grid, x.device());
  });
}

}  // namespace mixpl::cuda
