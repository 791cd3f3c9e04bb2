#include "ops/batched_matmul/batched_matmul.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_output_cuda.h"
#include "ops/conv2d/gemm_plan_cuda.h"

namespace mixpl::cuda {
namespace {

// What the products under the convolutions (ops/conv2d/gemm_mainloop_cuda.h) are told of one batch
// of matrices. The order of a factor says which of its axes is contiguous.
template <class Config_, Order kLeft, Order kRight>
struct Batches {
  using Config = Config_;
  using T = typename Config::T;
  using Result = T;
  using Left = MatrixLoader<Config, kLeft, Config::Tile::kM, Config::kGranule>;
  using Right = MatrixLoader<Config, kRight, Config::Tile::kN, Config::kGranule>;

  struct Part {
    const T *left_matrix, *right_matrix;
    Output<T> y;
    int rows, columns, reduction;

    MIXPL_DEVICE Left left(int row, int first) const {
      return loader<Left>(left_matrix, rows, row, first);
    }
    MIXPL_DEVICE Right right(int column, int first) const {
      return loader<Right>(right_matrix, columns, column, first);
    }
    MIXPL_DEVICE int line(int row) const { return row; }
    MIXPL_DEVICE const Output<T>& output() const { return y; }

   private:
    template <class Loader>
    MIXPL_DEVICE Loader loader(const T* matrix, int extent, int place, int first) const {
      if constexpr (Loader::Shared::kOrder == Order::reduction)
        return Loader(matrix, extent, reduction, reduction, place, first);
      else
        return Loader(matrix, reduction, extent, extent, first, place);
    }
  };

  Part first;

  MIXPL_DEVICE Part part(const GemmPlace& at) const {
    Part p = first;
    const int64_t batch = at.batch;
    p.left_matrix += batch * p.rows * p.reduction;
    p.right_matrix += batch * p.reduction * p.columns;
    p.y.to += batch * p.rows * p.columns;
    return p;
  }
};

// Matrices of proposals have some 50 rows, which a small tile holds; a large one pays for few.
template <Arithmetic kArithmetic, class F>
void with_tile(int granule, const GemmSize& size, F&& run) {
  const auto use = [&](auto config) { run(config, plan::grid<decltype(config)>(size)); };
  if constexpr (kArithmetic == Arithmetic::bf16) {
    using Large = GemmConfig<kArithmetic, LargeTile, 16>;
    if (granule < 16) return use(GemmConfig<kArithmetic, ScatteredTile, 2>{});
    if (plan::pays<Large>(size)) return use(Large{});
  } else if (granule < 16) {
    return use(GemmConfig<kArithmetic, SmallTile, 4>{});
  }
  use(GemmConfig<kArithmetic, SmallTile, 16>{});
}

template <class F>
void with_tile(DType dtype, int granule, const GemmSize& size, F&& run) {
  if (dtype == DType::bf16) return with_tile<Arithmetic::bf16>(granule, size, run);
  if (Context::current().allow_tf32) return with_tile<Arithmetic::tf32>(granule, size, run);
  with_tile<Arithmetic::f32>(granule, size, run);
}

// Whether the axis that sums run along is the contiguous one.
template <class F>
void with_orders(bool left_turned, bool right_turned, F&& f) {
  using Along = std::integral_constant<Order, Order::reduction>;
  using Across = std::integral_constant<Order, Order::result>;
  if (left_turned)
    f(Across(), Across());
  else if (right_turned)
    f(Along(), Along());
  else
    f(Along(), Across());
}

// Kernels count in 32 bits.
void check(const GemmSize& size) {
  constexpr int64_t kMost = (int64_t{1} << 31) - 1024;  // tiles reach over the end
  for (int64_t n : {size.batches, size.rows, size.columns, size.reduction})
    if (n > kMost)
      throw RangeError(
          str("batchedMatmul: axes must be at most ", kMost, " long on a GPU, got ", n));
}

}  // namespace

void batched_product(const BatchedFactor& left, const BatchedFactor& right, Tensor& y) {
  const Tensor &a = left.matrices, &b = right.matrices;
  const GemmSize size{y.size(0), y.size(1), y.size(2), left.columns()};
  check(size);
  const int granule = std::min(granule_of(a, a.size(2)), granule_of(b, b.size(2)));
  with_orders(left.turned, right.turned, [&](auto left_order, auto right_order) {
    with_tile(y.dtype(), granule, size, [&](auto config, const GemmGrid& grid) {
      using Config = decltype(config);
      using T = typename Config::T;
      using Problem = Batches<Config, decltype(left_order)::value, decltype(right_order)::value>;
      Output<T> output;
      output.to = y.data<T>();
      output.pitch = size.columns;
      output.aligned = granule_of(y, size.columns) == kChunkBytes;
      const Problem problem{{a.data<T>(), b.data<T>(), output, static_cast<int>(size.rows),
                             static_cast<int>(size.columns), static_cast<int>(size.reduction)}};
      multiply(problem, grid, y.device());
    });
  });
}

}  // namespace mixpl::cuda
