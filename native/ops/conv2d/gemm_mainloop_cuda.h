// The matrix product under every convolution, written once: a pipeline of asynchronous copies into
// shared memory, products of tiles, and an epilogue that sees every sum once.
//
// A Problem says what is multiplied: a batch of independent products. It is plain data, passed to
// the kernel by value, with
//   Config, Left, Right, Result  what is compiled, the loaders (gemm_loaders_cuda.h), the output's
//                                type
//   part(place)                  one product of the batch, again plain data, with
//     rows, columns, reduction        its size; reduction is how many terms a sum has
//     left(row, first)           loaders of a block's operands: rows (columns) from `row`, terms
//     right(column, first)         from `first` on
//     line(row)                  which row of the output it is
//     output()                   where chunks go (gemm_output_cuda.h)
// Long sums over a small result are split among blocks; a second kernel adds the parts in order, so
// a result has the same bits on every run.
#pragma once

#include <algorithm>

#include "core/tensor.h"
#include "ops/conv2d/gemm_multiply_cuda.h"

namespace mixpl::cuda {

/// How the work is divided. Blocks that share rows of the left operand follow each other: that is
/// the large one, and it is then read from memory once.
struct GemmGrid {
  int tiles_down, tiles_right, batches, splits;

  MIXPL_HD int64_t tiles() const { return int64_t{batches} * tiles_down * tiles_right; }
};

/// Where a block works. What a problem joins (gemm_levels_cuda.h) it numbers across its parts;
/// part() takes such a number and leaves the one within the part.
struct GemmPlace {
  int batch, tile_down, split, splits;
  int level = 0;
};

/// A block's tile, and its split of the reduction.
template <class Problem>
struct GemmBlock {
  using Tile = typename Problem::Config::Tile;

  typename Problem::Part part;
  int row, column;   // first of the tile
  int first, steps;  // first term of the reduction, steps of kStep terms
  int level;         // of problems that join some

  /// Tiles are numbered row by row; those of a cluster, which lie one below the other, in one go.
  /// Tile after tile, split after split.
  MIXPL_DEVICE GemmBlock(const Problem& problem, const GemmGrid& grid, unsigned index)
      : GemmBlock(problem, Numbers(grid, index)) {}

  /// The row of the output that a row of the tile is, -1 for none.
  MIXPL_DEVICE int line(int tile_row) const {
    return row + tile_row < part.rows ? part.line(row + tile_row) : -1;
  }
  /// Hands a chunk of the tile on if it lies inside the result; quad(e) gives four of its sums,
  /// from element e on.
  template <class Quad>
  MIXPL_DEVICE void store(int tile_row, int tile_column, Quad&& quad) const {
    constexpr int kWidth = kChunk<typename Problem::Result>;
    const int lines[1] = {line(tile_row)};
    if (lines[0] < 0 || column + tile_column >= part.columns) return;
    float sums[1][kWidth];
#pragma unroll
    for (int e = 0; e < kWidth; e += 4) {
      const Vec<float, 4> four = quad(e);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[0][e + i] = four[i];
    }
    part.output().store(lines[0], column + tile_column, part.columns, sums);
  }

 private:
  // Divisions take as long as a step of a product: none that is not needed.
  struct Numbers {
    GemmPlace place;
    int tile_right;

    MIXPL_DEVICE Numbers(const GemmGrid& grid, unsigned tile) {
      constexpr unsigned kCluster = Tile::kCluster;
      unsigned split = 0, batch = 0;
      if (grid.splits > 1) {
        const unsigned tiles = static_cast<unsigned>(grid.tiles());
        split = tile / tiles;
        tile -= split * tiles;
      }
      const unsigned rows = grid.tiles_down / kCluster, cluster = tile / kCluster;
      unsigned row = cluster / grid.tiles_right;
      tile_right = static_cast<int>(cluster - row * grid.tiles_right);
      if (grid.batches > 1) {
        batch = row / rows;
        row -= batch * rows;
      }
      place = {static_cast<int>(batch), static_cast<int>(row * kCluster + tile % kCluster),
               static_cast<int>(split), grid.splits};
    }
  };
  MIXPL_DEVICE GemmBlock(const Problem& problem, Numbers numbers)
      : part(problem.part(numbers.place)),
        row(numbers.place.tile_down * Tile::kM),
        column(numbers.tile_right * Tile::kN),
        level(numbers.place.level) {
    constexpr int kStep = Problem::Config::kStep;
    const GemmPlace& at = numbers.place;
    const int all = (part.reduction + kStep - 1) / kStep;
    int begin = 0, end = all;
    if (at.splits > 1) {
      begin = static_cast<int>(int64_t{all} * at.split / at.splits);
      end = static_cast<int>(int64_t{all} * (at.split + 1) / at.splits);
    }
    first = begin * kStep;
    steps = end - begin;
  }
};

template <class Problem>
constexpr int kStageBytes = Problem::Left::Shared::kBytes + Problem::Right::Shared::kBytes;
template <class Problem>
constexpr int kRingBytes = Problem::Config::Tile::kStages* kStageBytes<Problem>;
/// What warpgroups hand their sums on through lies behind the ring.
template <class Problem, class Tile = typename Problem::Config::Tile>
constexpr int kSharedBytes = Tile::kWarpgroups
                                 ? kRingBytes<Problem> + Tile::kThreads / 32 * SumPiece::kBytes
                                 : std::max(kRingBytes<Problem>, Tile::kM* kSumPitch<Tile> * 4);

/// Multiplies a block's tiles step by step.
template <class Problem, class Product>
MIXPL_DEVICE void multiply_tiles(const GemmBlock<Problem>& at, Product& product, char* shared) {
  using Left = typename Problem::Left;
  using Right = typename Problem::Right;
  Left left = at.part.left(at.row, at.first);
  Right right = at.part.right(at.column, at.first);
  using Tile = typename Problem::Config::Tile;
  constexpr int kStages = Tile::kStages, kRing = kStages * kStageBytes<Problem>;
  int loaded = 0, loading = 0, multiplying = 0;  // steps; offsets of their stages
  const auto next = [](int stage) {
    stage += kStageBytes<Problem>;
    return stage == kRing ? 0 : stage;
  };
  const auto load = [&] {
    if (loaded < at.steps) {
      left.load(shared + loading);
      right.load(shared + loading + Left::Shared::kBytes);
    }
    cp_async_commit();  // an empty group at the end: the count below stays right
    ++loaded;
    loading = next(loading);
  };
  // Steps on their way while one is multiplied; what is multiplied must stay where it is.
  constexpr int kAhead = kStages - 1 - Tile::kBehind;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load();
  // The next step is there for all, and all are done with the stage that load() fills.
  const auto arrive = [&] {
    cp_async_wait<kAhead - 1>();
    if constexpr (Tile::kWarpgroups) fence_async_proxy();
    sync_block();
    const char* tile = shared + multiplying;
    multiplying = next(multiplying);
    return tile;
  };
  constexpr int kRight = Left::Shared::kBytes;
  if constexpr (Tile::kWarpgroups) {
    if (at.steps > 0) {  // the hardware multiplies by itself
      const char* tile = arrive();
      product.begin(tile, tile + kRight);
      load();
      for (int step = 1; step < at.steps; ++step) {
        product.settle();
        tile = arrive();
        product.step(tile, tile + kRight);
        load();
      }
      product.finish();
    } else {
      product.clear();
    }
  } else {
    for (int step = 0; step < at.steps; ++step) {
      const char* tile = arrive();
      load();
      product.step(tile, tile + kRight);
    }
  }
  cp_async_wait<0>();
}

/// Calls f(row, column) for this thread's chunks of rows [0, rows) of a tile.
template <class Problem, class F>
MIXPL_DEVICE void for_each_chunk(int rows, F&& f) {
  constexpr int kWidth = kChunk<typename Problem::Result>;
  constexpr int kColumns = Problem::Config::Tile::kN / kWidth;
  for (int i = threadIdx.x; i < rows * kColumns; i += blockDim.x)
    f(i / kColumns, i % kColumns * kWidth);
}

/// Stores a block's product; to place `index` of `parts` [splits, tiles, kM, kN] when sums are
/// split.
template <class Problem, class Product>
MIXPL_DEVICE void hand_on(const GemmBlock<Problem>& at, const Product& product, char* shared,
                          float* parts, unsigned index) {
  using Tile = typename Problem::Config::Tile;
  constexpr int kWidth = kChunk<typename Problem::Result>;
  const int lane = only_here(cuda::lane());
  if (parts) {
    // Lanes read quarters of one kind, and write whole rows.
    const int row = lane / 16, quarter = 2 * (lane & 7) + (lane >> 3 & 1);
    float* part = parts + static_cast<int64_t>(index) * (Tile::kM * Tile::kN) + 4 * quarter;
    product.for_each_piece(shared, [&](int first, int column, const SumPiece& sums) {
#pragma unroll
      for (int i = row; i < SumPiece::kRows; i += 2)
        store_vec(part + (first + i) * Tile::kN + column, sums.quarter(i, 4 * quarter));
    });
  } else if (at.part.output().aligned) {
    constexpr int kLanes = SumPiece::kColumns / kWidth;  // of a row
    constexpr int kEvery = 32 / kLanes, kLines = SumPiece::kRows / kEvery;
    const int row = lane / kLanes;
    const int chunk = kWidth == 8 ? 8 * (lane & 7) : 8 * (lane & 7) + 4 * (lane >> 3 & 1);
    product.for_each_piece(shared, [&](int first, int column, const SumPiece& piece) {
      int lines[kLines];
      float sums[kLines][kWidth];
#pragma unroll
      for (int i = 0; i < kLines; ++i) {
        lines[i] = at.line(first + row + i * kEvery);
#pragma unroll
        for (int e = 0; e < kWidth; e += 4) {
          const Vec<float, 4> four = piece.quarter(row + i * kEvery, chunk + e);
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[i][e + j] = four[j];
        }
      }
      at.part.output().store_chunks(lines, at.column + column + chunk, at.part.columns, sums);
    });
  } else {
    product.for_each_piece(shared, [&](int first, int column, const SumPiece& sums) {
#pragma unroll 1
      for (int i = lane; i < SumPiece::kRows * SumPiece::kColumns; i += 32) {
        const int row = i / SumPiece::kColumns, e = i % SumPiece::kColumns;
        const int line = at.line(first + row), to = at.column + column + e;
        if (line >= 0 && to < at.part.columns)
          at.part.output().store_element(line, to, sums.element(row, e));
      }
    });
  }
}
/// The same of sums that lie in shared memory.
template <class Problem>
MIXPL_DEVICE void hand_on(const GemmBlock<Problem>& at, const float* sums, float* parts,
                          unsigned index) {
  using Tile = typename Problem::Config::Tile;
  if (parts) {
    float* part = parts + static_cast<int64_t>(index) * (Tile::kM * Tile::kN);
    for (int i = threadIdx.x * 4; i < Tile::kM * Tile::kN; i += Tile::kThreads * 4)
      store_vec(part + i, load_vec<float, 4>(sums + i / Tile::kN * kSumPitch<Tile> + i % Tile::kN));
    return;
  }
  for_each_chunk<Problem>(Tile::kM, [&](int row, int column) {
    at.store(row, column,
             [&](int e) { return load_vec<float, 4>(sums + row * kSumPitch<Tile> + column + e); });
  });
}

/// One tile a block.
template <class Problem>
MIXPL_KERNEL __launch_bounds__(Problem::Config::Tile::kThreads, Problem::Config::Tile::kBlocksPerSm)
    gemm_kernel(Problem problem, GemmGrid grid, float* parts) {
  using Config = typename Problem::Config;
  MIXPL_DYNAMIC_SHARED(char, shared);
  const GemmBlock<Problem> at(problem, grid, blockIdx.x);
  if (at.row >= at.part.rows) return;  // products may differ in size
  Product<Config, Problem::Left::Shared::kOrder, Problem::Right::Shared::kOrder> product;
  multiply_tiles(at, product, shared);
  if constexpr (Config::Tile::kWarpgroups) {
    hand_on(at, product, shared + kRingBytes<Problem>, parts, blockIdx.x);
  } else {
    float* sums = reinterpret_cast<float*>(shared);
    sync_block();  // nobody reads the operands any more
    product.write(sums);
    sync_block();
    hand_on(at, static_cast<const float*>(sums), parts, blockIdx.x);
  }
}

constexpr int kSumRows = 4;  // of a tile that a block of the second kernel finishes

/// Adds the parts of a tile in order.
template <class Problem>
MIXPL_KERNEL sum_parts_kernel(Problem problem, GemmGrid grid, const float* parts) {
  using Tile = typename Problem::Config::Tile;
  constexpr int kBlocks = Tile::kM / kSumRows;
  const unsigned tile = blockIdx.x / kBlocks;
  const int first = blockIdx.x % kBlocks * kSumRows;
  const GemmBlock<Problem> at(problem, grid, tile);
  const int64_t pitch = grid.tiles() * (Tile::kM * Tile::kN);
  const float* from = parts + static_cast<int64_t>(tile) * (Tile::kM * Tile::kN);
  for_each_chunk<Problem>(kSumRows, [&](int row, int column) {
    at.store(first + row, column, [&](int e) {
      const float* part = from + (first + row) * Tile::kN + column + e;
      Vec<float, 4> sum = load_vec<float, 4>(part);
#pragma unroll 4  // loads in flight
      for (int split = 1; split < grid.splits; ++split) {
        const Vec<float, 4> other = load_vec<float, 4>(part + split * pitch);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += other[i];
      }
      return sum;
    });
  });
}

/// Room for the parts of split sums; undefined where none are.
template <class Problem>
Tensor parts_of(const GemmGrid& grid, Device device) {
  using Tile = typename Problem::Config::Tile;
  if (grid.splits == 1) return {};
  return Tensor::empty({grid.splits, grid.tiles(), Tile::kM, Tile::kN}, DType::f32, device);
}
template <class Problem>
void add_parts(const Problem& problem, const GemmGrid& grid, const Tensor& parts) {
  using Tile = typename Problem::Config::Tile;
  if (!parts.defined()) return;
  launch(sum_parts_kernel<Problem>,
         dim3(static_cast<unsigned>(grid.tiles() * (Tile::kM / kSumRows))), dim3(128), 0, problem,
         grid, static_cast<const float*>(parts.data<float>()));
}

/// Runs a problem as `grid` says.
template <class Problem>
void multiply(const Problem& problem, const GemmGrid& grid, Device device) {
  using Tile = typename Problem::Config::Tile;
  const Tensor parts = parts_of<Problem>(grid, device);
  launch(gemm_kernel<Problem>, dim3(static_cast<unsigned>(grid.tiles() * grid.splits)),
         dim3(Tile::kThreads), kSharedBytes<Problem>, problem, grid,
         parts.defined() ? parts.data<float>() : static_cast<float*>(nullptr));
  add_parts(problem, grid, parts);
}

}  // namespace mixpl::cuda
