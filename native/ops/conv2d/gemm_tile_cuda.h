// The tiles of a matrix product: their shapes, and how an operand lies in shared memory.
#pragma once

#include "core/cuda/kernel.h"
#include "core/dtype.h"
#if !defined(MIXPL_CUDA_EMULATED)
#include "core/cuda/narrow_products.h"
#endif

namespace mixpl::cuda {

/// What multiplies. bf16 and tf32 products run on the tensor cores, f32 is exact; sums are f32.
enum class Arithmetic { bf16, tf32, f32 };

// Everything moves in chunks of 16 bytes.
constexpr int kChunkBytes = 16;
template <typename T>
constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

/// A block's part of the result and how its warps share it.
template <int kM_, int kN_, int kWarpM_, int kWarpN_, int kBlocksPerSm_>
struct TileShape {
  static constexpr int kM = kM_, kN = kN_, kWarpM = kWarpM_, kWarpN = kWarpN_;
  static constexpr int kThreads = kM / kWarpM * (kN / kWarpN) * 32;
  static constexpr int kBlocksPerSm = kBlocksPerSm_;  // bounds the registers a thread may use
  // One step of the main loop multiplies four chunks along the reduction, 32 bf16 or 16 f32: a row
  // of 64 bytes.
  static constexpr int kStepChunks = 4;
  static constexpr int kStages = 4;  // steps in flight: one is multiplied, the others are copied
  static constexpr int kBehind = 0, kCluster = 1;
  static constexpr bool kWarpgroups = false, kBulk = false;

  static MIXPL_DEVICE int warp_row() { return warp() / (kN / kWarpN) * kWarpM; }
  static MIXPL_DEVICE int warp_column() { return warp() % (kN / kWarpN) * kWarpN; }
};
using LargeTile = TileShape<128, 128, 64, 32, 2>;
using TallTile = TileShape<128, 64, 64, 32, 3>;
using ExactTallTile = TileShape<128, 64, 64, 32, 2>;  // f32: addresses and sums need registers
using SmallTile = TileShape<64, 64, 32, 32, 4>;
using ScatteredTile = TileShape<64, 64, 32, 32, 3>;  // for copies one by one: many addresses

/// For wgmma (core/cuda/warpgroups.h): two groups of four warps, 64 rows each. Two blocks of a
/// multiprocessor hide one another's waits.
struct WarpgroupTile {
  static constexpr int kM = 128, kN = 128, kThreads = 256, kBlocksPerSm = 2;
  static constexpr int kStepChunks = 8;  // a row of 128 bytes, the widest swizzle
  static constexpr int kStages = 3, kBehind = 0, kCluster = 1;
  static constexpr bool kWarpgroups = true, kBulk = false;
  // Cycles that a step of two blocks and of one alone takes, and a tile beside its steps: fitted to
  // an H100, those below to an H200 (docs/performance.md), at 1,750 cycles a microsecond.
  static constexpr int kStepCycles = 1650, kAloneCycles = 1050, kTileCycles = 5500;
};
/// Tiles that the hardware copies (gemm_bulk_cuda.h), in pairs of blocks. Groups of four warps
/// multiply 64 rows each. kBehind: steps still multiplied when the next one is started.
template <int kM_, int kN_, int kBlocksPerSm_, int kCopyingRegisters_, int kRegisters_>
struct BulkTileShape {
  static constexpr int kM = kM_, kN = kN_, kThreads = 2 * kM, kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kStepChunks = 8, kStages = 4, kBehind = 1, kCluster = 2;
  static constexpr bool kWarpgroups = true, kBulk = true;
  // Where one block has a multiprocessor for itself, four warps, of which one copies, leave their
  // registers to those that multiply.
  static constexpr bool kMovesRegisters = kBlocksPerSm == 1;
  static constexpr int kCopyingRegisters = kCopyingRegisters_, kRegisters = kRegisters_;
};
struct BulkTile : BulkTileShape<128, 256, 1, 56, 224> {
  static constexpr int kStepCycles = 1130, kAloneCycles = 1130, kTileCycles = 5500;
};
struct BulkTallTile : BulkTileShape<256, 128, 1, 64, 104> {
  static constexpr int kStepCycles = 1230, kAloneCycles = 1230, kTileCycles = 4000;
};
/// Two blocks: one stores while the other multiplies.
struct BulkNarrowTile : BulkTileShape<128, 64, 2, 0, 0> {
  static constexpr int kStepCycles = 1100, kAloneCycles = 750, kTileCycles = 3000;
};

/// Everything a kernel is compiled for. kGranule: bytes of the smallest run of an activation that
/// is contiguous and aligned for every chunk: 16, 4, or an element.
template <Arithmetic kArithmetic_, class Tile_, int kGranule_>
struct GemmConfig {
  static constexpr Arithmetic kArithmetic = kArithmetic_;
  using T = std::conditional_t<kArithmetic_ == Arithmetic::bf16, bfloat16, float>;
  using Tile = Tile_;
  static constexpr int kGranule = kGranule_;
  static constexpr int kStep = Tile::kStepChunks * kChunk<T>;  // terms of every sum a step adds
};

/// Which axis of an operand is contiguous, in memory and in shared memory.
enum class Order {
  reduction,  // rows of the operand are rows of the tile
  result,     // every element of the reduction is a row of the tile
};

/// An operand's tile in shared memory: `kExtent` rows (or columns) of the result by one step.
/// Chunks are permuted within their row so that neither the copies (rows) nor the products
/// (columns) meet twice in a bank. For wgmma, rows are cut into pieces of 128 bytes that lie one
/// below the other.
template <class Config, Order kOrder_, int kExtent>
struct SharedTile {
  using T = typename Config::T;
  static constexpr Order kOrder = kOrder_;
  static constexpr int kRows = kOrder == Order::reduction ? kExtent : Config::kStep;
  static constexpr int kColumns =
      kOrder == Order::reduction ? Config::Tile::kStepChunks : kExtent / kChunk<T>;
  static constexpr int kRowBytes =
      Config::Tile::kWarpgroups ? kSwizzleBytes : kColumns * kChunkBytes;
  static constexpr int kBytes = kRows * kColumns * kChunkBytes;

  /// Where chunk `column` of `row` starts, in bytes. From there, without working it out again:
  /// + n kRowBytes is n rows on, n a multiple of kPeriod; ^ n kChunkBytes is n columns on, if no
  /// bit of n is one of the column's and no row is cut.
  static MIXPL_DEVICE int offset(int row, int column) {
    if constexpr (Config::Tile::kWarpgroups)
      return ((column >> 3) * kRows + row) * kRowBytes + ((column ^ row) & 7) * kChunkBytes;
    else
      return row * kRowBytes + (column ^ permutation(row)) * kChunkBytes;
  }
  static constexpr int kPeriod = kOrder == Order::reduction || sizeof(T) == 2 ? 8 : 4;

  /// What a column's number is xored with, where rows are not cut. That of two rows without a
  /// common bit is the xor of both.
  static MIXPL_HD constexpr int permutation(int row) {
    if constexpr (kOrder == Order::reduction)
      return row >> 1 & 3;  // two rows of 64 bytes fill the banks once
    else if constexpr (sizeof(T) == 2)
      return row & 7;  // ldmatrix reads one column of eight rows
    else
      return (row & 3) << 1;  // a tf32 fragment reads two columns of four rows
  }
};

}  // namespace mixpl::cuda
