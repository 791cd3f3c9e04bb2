// Which kernel multiplies: the tile and the split follow from the size of the product alone, by the
// rule below. Nothing is measured at run time, and a result never depends on the card.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>

#include "core/context.h"
#include "core/tensor.h"
#include "ops/conv2d/gemm_mainloop_cuda.h"
#include "ops/conv2d/gemm_settings_cuda.h"

namespace mixpl::cuda {

/// The size of a product: `batches` results of at most `rows` by `columns`, sums of at most
/// `reduction` terms.
struct GemmSize {
  int64_t batches, rows, columns, reduction;
};

namespace plan {

constexpr int64_t kLeastSteps = 8;  // a split must be worth its start and its partial sums

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// @throws RangeError
inline void check(const GemmGrid& grid) {
  if (grid.tiles() * grid.splits >= int64_t{1} << 31)
    throw RangeError(str("conv2d: the result is too large for one launch, ", grid.tiles_down,
                         " by ", grid.tiles_right, " tiles in ", grid.batches, " parts"));
}

/// The grid of `splits` splits.
template <class Config>
GemmGrid grid(const GemmSize& size, int64_t splits) {
  using Tile = typename Config::Tile;
  GemmGrid grid{static_cast<int>(ceil_div(size.rows, Tile::kM * Tile::kCluster)) * Tile::kCluster,
                static_cast<int>(ceil_div(size.columns, Tile::kN)), static_cast<int>(size.batches),
                static_cast<int>(splits)};
  check(grid);
  return grid;
}

/// As many splits as fill the card once.
template <class Config>
GemmGrid grid(const GemmSize& size) {
  const GemmGrid whole = grid<Config>(size, 1);
  const int64_t room =
      multiprocessors * Config::Tile::kBlocksPerSm / std::max<int64_t>(1, whole.tiles());
  const int64_t steps = ceil_div(size.reduction, Config::kStep);
  return grid<Config>(size, std::max<int64_t>(1, std::min(room, steps / kLeastSteps)));
}

/// A tile pays if less than half of it is empty and every multiprocessor gets one.
template <class Config>
bool pays(const GemmSize& size) {
  using Tile = typename Config::Tile;
  const GemmGrid g = grid<Config>(size);
  return 2 * size.rows > Tile::kM && 2 * size.columns > Tile::kN &&
         g.tiles() * g.splits >= multiprocessors;
}

/// What a product takes, in cycles: whole waves of blocks, what is left, and the parts of split
/// sums on their way to memory and back.
template <class Config>
double cycles(const GemmGrid& g, const GemmSize& size) {
  using Tile = typename Config::Tile;
  const int64_t blocks = g.tiles() * g.splits, room = multiprocessors * Tile::kBlocksPerSm;
  const double steps = ceil_div(ceil_div(size.reduction, Config::kStep), g.splits);
  const double wave = steps * Tile::kStepCycles + Tile::kTileCycles;
  const double alone = steps * Tile::kAloneCycles + Tile::kTileCycles;
  const int64_t rest = blocks % room;
  constexpr double kBytesACycle = 1700, kSecondKernel = 6000;
  const double parts = 8.0 * Tile::kM * Tile::kN * blocks / kBytesACycle + kSecondKernel;
  return blocks / room * wave +
         (rest == 0                 ? 0
          : rest <= multiprocessors ? alone
                                    : wave) +
         (g.splits > 1 ? parts : 0);
}

/// The fastest division of those whose splits are worth their start.
template <class Config>
GemmGrid fastest(const GemmSize& size) {
  constexpr int64_t kMostSplits = 32;
  const int64_t steps = ceil_div(size.reduction, Config::kStep);
  GemmGrid best = grid<Config>(size, 1);
  double least = cycles<Config>(best, size);
  for (int64_t splits = 2; splits <= std::min(kMostSplits, steps / kLeastSteps); ++splits) {
    const GemmGrid g = grid<Config>(size, splits);
    const double taken = cycles<Config>(g, size);
    if (taken >= least) continue;
    best = g;
    least = taken;
  }
  return best;
}

}  // namespace plan

/// What the kernel for a product is chosen by, beside its size. `granule`: of GemmConfig; `bulk`:
/// the hardware can copy the operands' tiles by itself (gemm_bulk_cuda.h), kAnyTile: not only the
/// widest.
template <bool kAnyTile>
struct GemmOperands {
  int granule;
  bool bulk;
};

/// Calls run(config, grid) with a GemmConfig for warpgroups, if they pay.
template <bool kAnyTile, class F>
bool with_warpgroup_tile(const GemmOperands<kAnyTile>& operands, const GemmSize& size, F&& run) {
  using Group = GemmConfig<Arithmetic::bf16, WarpgroupTile, 16>;
  if (!has_warpgroups()) return false;
  std::function<void()> best;
  double least = std::numeric_limits<double>::infinity();
  const auto offer = [&](auto config, const GemmGrid& grid) {
    const double taken = plan::cycles<decltype(config)>(grid, size);
    if (taken >= least) return;
    least = taken;
    best = [&run, config, grid] { run(config, grid); };
  };
#if !defined(MIXPL_CUDA_EMULATED)
  const auto offer_bulk = [&](auto config) {
    using Config = decltype(config);
    using Tile = typename Config::Tile;
    if (size.rows <= Tile::kM || 2 * size.columns <= Tile::kN) return;
    if (plan::bulk_columns != 0 && plan::bulk_columns != Tile::kN) return;
    const GemmGrid grid = plan::fastest<Config>(size);
    if (2 * grid.tiles() * grid.splits >= plan::multiprocessors) offer(config, grid);
  };
  if (operands.bulk && plan::bulk_copies && size.reduction > 0) {
    offer_bulk(GemmConfig<Arithmetic::bf16, BulkTile, 16>{});
    if constexpr (kAnyTile) offer_bulk(GemmConfig<Arithmetic::bf16, BulkTallTile, 16>{});
    if constexpr (kAnyTile) offer_bulk(GemmConfig<Arithmetic::bf16, BulkNarrowTile, 16>{});
  }
#endif
  if (plan::warpgroups && plan::pays<Group>(size)) offer(Group{}, plan::grid<Group>(size));
  if (best) best();
  return static_cast<bool>(best);
}

/// Calls run(config, grid) with a GemmConfig: the largest tile that pays, the small one if none
/// does.
template <Arithmetic kArithmetic, bool kAnyTile, class F>
void with_gemm_tile(const GemmOperands<kAnyTile>& operands, const GemmSize& size, F&& run) {
  using Large = GemmConfig<kArithmetic, LargeTile, 16>;
  using Tall =
      GemmConfig<kArithmetic,
                 std::conditional_t<kArithmetic == Arithmetic::f32, ExactTallTile, TallTile>, 16>;
  const auto use = [&](auto config) { run(config, plan::grid<decltype(config)>(size)); };
  if (operands.granule < 16) {
    // Few layers have such channels, and their copies, not their products, take the time.
    if constexpr (kArithmetic == Arithmetic::bf16)
      if (operands.granule == 2) return use(GemmConfig<kArithmetic, ScatteredTile, 2>{});
    return use(GemmConfig<kArithmetic, SmallTile, 4>{});
  }
  // f32 and tf32 need more registers for operands and their addresses than two large blocks leave.
  if constexpr (kArithmetic == Arithmetic::bf16) {
    if (with_warpgroup_tile(operands, size, run)) return;
    if (plan::pays<Large>(size)) return use(Large{});
  }
  if (plan::pays<Tall>(size)) return use(Tall{});
  use(GemmConfig<kArithmetic, SmallTile, 16>{});
}

template <bool kAnyTile, class F>
void with_gemm_config(DType dtype, const GemmOperands<kAnyTile>& operands, const GemmSize& size,
                      F&& run) {
  if (dtype == DType::bf16) return with_gemm_tile<Arithmetic::bf16>(operands, size, run);
  if (Context::current().allow_tf32) return with_gemm_tile<Arithmetic::tf32>(operands, size, run);
  with_gemm_tile<Arithmetic::f32>(operands, size, run);
}

/// Kernels count in 32 bits. @throws RangeError
inline int as_int(int64_t value, const char* what) {
  constexpr int64_t kLimit = (int64_t{1} << 31) - 1024;  // tiles reach over the end
  if (value > kLimit)
    throw RangeError(str("conv2d: ", what, " must be at most ", kLimit, " on a GPU, got ", value));
  return static_cast<int>(value);
}

}  // namespace mixpl::cuda
