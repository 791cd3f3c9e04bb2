#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/conv2d_size_cuda.h"
#include "ops/conv2d/gemm_levels_cuda.h"
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
#if !defined(MIXPL_CUDA_EMULATED)
  using BulkLeft = BulkMatrixColumns<Config, Config::Tile::kM>;
  using BulkRight = BulkPatchColumns<Config, Config::Tile::kN>;
  TensorMap left_map() const {
    const uint64_t pitch = 2 * dy_pitch,
                   positions = int64_t{x.images} * x.down.positions * x.right.positions;
    return box_map(dy, {{uint64_t(filters_a_group), 0, kBulkPixels},
                        {positions, pitch, kBulkPixels},
                        {1, pitch * positions, 1}});
  }
  TensorMap right_map() const { return patch_map(x, kBulkPixels); }
#endif

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
    MIXPL_DEVICE int line(int row) const { return row; }
    MIXPL_DEVICE const Output<float>& output() const { return dweight; }
#if !defined(MIXPL_CUDA_EMULATED)
    MIXPL_DEVICE BulkLeft bulk_left(int row, int step) const { return BulkLeft(row, step); }
    MIXPL_DEVICE BulkRight bulk_right(int column, int step) const {
      return BulkRight(x, column, step);
    }
#endif
  };

  Patches<T> x;
  const T* dy;
  int filters_a_group, dy_pitch;
  Output<float> dweight;

  MIXPL_DEVICE Part part(const GemmPlace& at) const {
    Part p{x, dy, dy_pitch, dweight, filters_a_group, x.columns(), x.rows()};
    p.x.source += at.batch * x.channels;
    p.dy += at.batch * filters_a_group;
    p.dweight.to += at.batch * filters_a_group * dweight.pitch;
    if (p.dweight.residual) p.dweight.residual = p.dweight.to;
    return p;
  }

  static constexpr LevelsAlong kAlong = LevelsAlong::reduction;
  struct Level {
    const T *x, *dy;
    int images, height, width, down, right;
  };
  Level level() const {
    return {x.source, dy, x.images, x.height, x.width, x.down.positions, x.right.positions};
  }
  MIXPL_DEVICE void enter(const Level& level) {
    x.source = level.x;
    x.images = level.images;
    x.height = level.height;
    x.width = level.width;
    x.down.positions = level.down;
    x.right.positions = level.right;
    dy = level.dy;
  }
};

}  // namespace

void conv2d_backward_weight(const Tensor& x, const Tensor& dy, const Conv2dOptions& o,
                            Tensor& dweight, bool add) {
  const bool some = dy.numel() > 0 && x.numel() > 0;
  conv2d_backward_weight(some ? std::vector{x} : std::vector<Tensor>(), {dy}, o, dweight, add);
}

void conv2d_backward_weight(const std::vector<Tensor>& xs, const std::vector<Tensor>& given,
                            const Conv2dOptions& o, Tensor& dweight, bool add) {
  if (dweight.numel() == 0) return;
  if (xs.empty()) {
    if (!add) memset_device(dweight.raw(), 0, dweight.nbytes());
    return;
  }
  const std::vector<Tensor> dys = pad_gradient(given, dweight.shape(), o);
  std::vector<ConvSize> sizes;
  std::vector<int64_t> terms;
  int granule = kChunkBytes;
  bool bulk = true;
  for (size_t l = 0; l < xs.size(); ++l) {
    const ConvSize& z = sizes.emplace_back(xs[l].shape(), dweight.shape(), dys[l].shape(), o);
    terms.push_back(int64_t{z.n} * z.p * z.q);
    granule =
        std::min({granule, granule_of(xs[l], z.c), granule_of(dys[l], dys[l].size(3) / z.groups)});
    bulk &= z.groups == 1 && z.c % 64 == 0 && fits_bulk(z.down(), z.h) && fits_bulk(z.right(), z.w);
  }
  const ConvSize& any = sizes[0];
  const GemmSize size{any.groups, any.k, any.sum(), sum(terms)};
  const GemmOperands<false> operands{granule, bulk};
  with_gemm_config(xs[0].dtype(), operands, size, [&](auto config, const GemmGrid& grid) {
    using Config = decltype(config);
    using T = typename Config::T;
    std::vector<WeightGradient<Config>> levels;
    for (size_t l = 0; l < xs.size(); ++l) {
      const ConvSize& z = sizes[l];
      const Patches<T> patches{xs[l].data<T>(), z.n, z.h,      z.w,
                               z.c * z.groups,  z.c, z.down(), z.right()};
      Output<float> output;
      output.to = dweight.data<float>();
      output.residual = add ? output.to : nullptr;
      output.pitch = z.sum();
      output.aligned = granule_of(dweight, z.sum()) == kChunkBytes;
      const int dy_pitch = static_cast<int>(dys[l].size(3));
      levels.push_back({patches, dys[l].data<T>(), z.k, dy_pitch, output});
    }
    multiply_levels(levels, terms, grid, xs[0].device());
  });
}

}  // namespace mixpl::cuda
