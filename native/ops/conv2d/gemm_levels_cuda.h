// One matrix product over maps ("levels") that share their filters, in one launch; one map is a
// list of one.
#pragma once

#include <numeric>
#include <vector>

#include "ops/conv2d/gemm_mainloop_cuda.h"
#include "ops/conv2d/gemm_plan_cuda.h"
#include "ops/conv2d/level_starts_cuda.h"
#if !defined(MIXPL_CUDA_EMULATED)
#include "ops/conv2d/gemm_bulk_cuda.h"
#endif

namespace mixpl::cuda {

/// What follows level after level: the rows of the result, or the terms of its sums.
enum class LevelsAlong { rows, reduction };

/// `Problem` (gemm_mainloop_cuda.h) over levels. It says by `Level`, `level()` and `enter(level)`
/// what differs between them, and by kAlong how they follow each other.
template <class Problem>
struct OverLevels {
  using Config = typename Problem::Config;
  using Result = typename Problem::Result;
  using Left = typename Problem::Left;
  using Right = typename Problem::Right;
  using Part = typename Problem::Part;
#if !defined(MIXPL_CUDA_EMULATED)
  using BulkLeft = typename Problem::BulkLeft;
  using BulkRight = typename Problem::BulkRight;
#endif

  Problem common;
  typename Problem::Level levels[kMostConvLevels];
  LevelStarts starts;

  MIXPL_DEVICE Part part(GemmPlace& at) const {
    int& place = Problem::kAlong == LevelsAlong::rows ? at.tile_down : at.split;
    const int level = starts.find(place);
    place -= starts.first[level];
    if (Problem::kAlong == LevelsAlong::reduction)
      at.splits = starts.first[level + 1] - starts.first[level];
    at.level = level;
    Problem problem = common;
    problem.enter(levels[level]);
    return problem.part(at);
  }
};

inline int64_t sum(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

/// Runs the same product on every level; `sizes` holds the rows, or terms, of each. `grid` is that
/// of all of them as if they were one.
template <class Problem>
void multiply_levels(const std::vector<Problem>& problems, const std::vector<int64_t>& sizes,
                     GemmGrid grid, Device device) {
  using Config = typename Problem::Config;
  OverLevels<Problem> all{problems[0], {}, {}};
  int64_t steps = 0;
  const auto steps_of = [](int64_t terms) { return plan::ceil_div(terms, Config::kStep); };
  for (int64_t size : sizes) steps += steps_of(size);
  for (size_t l = 0; l < problems.size(); ++l) {
    all.levels[l] = problems[l].level();
    if (Problem::kAlong == LevelsAlong::rows)
      all.starts.add(plan::ceil_div(sizes[l], Config::Tile::kM));
    else  // as long as the splits of one sum would be
      all.starts.add(plan::ceil_div(steps_of(sizes[l]), plan::ceil_div(steps, grid.splits)));
  }
  (Problem::kAlong == LevelsAlong::rows ? grid.tiles_down : grid.splits) = all.starts.places();
  constexpr int kCluster = Config::Tile::kCluster;
  grid.tiles_down = static_cast<int>(plan::ceil_div(grid.tiles_down, kCluster)) * kCluster;
  plan::check(grid);
#if !defined(MIXPL_CUDA_EMULATED)
  if constexpr (Config::Tile::kBulk) {
    BulkMaps maps;
    for (size_t l = 0; l < problems.size(); ++l) {
      maps.left[l] = problems[l].left_map();
      maps.right[l] = problems[l].right_map();
    }
    return multiply_bulk(all, maps, grid, device);
  }
#endif
  if constexpr (!Config::Tile::kBulk) multiply(all, grid, device);
}

}  // namespace mixpl::cuda
