// The tiles of a matrix product: their shapes, and how an operand lies in shared memory.
#pragma once

#include "core/cuda/kernel.h"
#include "core/dtype.h"

namespace mixpl::cuda {

/// What multiplies. bf16 and tf32 products run on the tensor cores, f32 is exact; sums are f32.
enum class Arithmetic { bf16, tf32, f32 };

// Everything moves in chunks of 16 bytes. One step of the main loop multiplies four chunks along
// the reduction, 32 bf16 or 16 f32: a row of 64 bytes.
constexpr int kChunkBytes = 16, kStepChunks = 4;
template <typename T>
constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));
template <typename T>
constexpr int kStep = kStepChunks* kChunk<T>;

/// A block's part of the result and how its warps share it.
template <int kM_, int kN_, int kWarpM_, int kWarpN_, int kBlocksPerSm_>
struct TileShape {
  static constexpr int kM = kM_, kN = kN_, kWarpM = kWarpM_, kWarpN = kWarpN_;
  static constexpr int kThreads = kM / kWarpM * (kN / kWarpN) * 32;
  static constexpr int kBlocksPerSm = kBlocksPerSm_;  // bounds the registers a thread may use

  static MIXPL_DEVICE int warp_row() { return warp() / (kN / kWarpN) * kWarpM; }
  static MIXPL_DEVICE int warp_column() { return warp() % (kN / kWarpN) * kWarpN; }
};
using LargeTile = TileShape<128, 128, 64, 32, 2>;
using TallTile = TileShape<128, 64, 64, 32, 3>;
using SmallTile = TileShape<64, 64, 32, 32, 4>;
using ScatteredTile = TileShape<64, 64, 32, 32, 3>;  // for copies one by one: many addresses

/// Everything a kernel is compiled for. kGranule: bytes of the smallest run of an activation that
/// is contiguous and aligned for every chunk: 16, 4, or an element.
template <Arithmetic kArithmetic_, class Tile_, int kGranule_>
struct GemmConfig {
  static constexpr Arithmetic kArithmetic = kArithmetic_;
  using T = std::conditional_t<kArithmetic_ == Arithmetic::bf16, bfloat16, float>;
  using Tile = Tile_;
  static constexpr int kGranule = kGranule_;
};

/// Which axis of an operand is contiguous, in memory and in shared memory.
enum class Order {
  reduction,  // rows of the operand are rows of the tile
  result,     // every element of the reduction is a row of the tile
};

/// An operand's tile in shared memory: `kExtent` rows (or columns) of the result by one step.
/// Chunks are permuted within their row so that neither the copies (rows) nor the products
/// (columns) meet twice in a bank.
template <typename T, Order kOrder_, int kExtent>
struct SharedTile {
  static constexpr Order kOrder = kOrder_;
  static constexpr int kRows = kOrder == Order::reduction ? kExtent : kStep<T>;
  static constexpr int kColumns = kOrder == Order::reduction ? kStepChunks : kExtent / kChunk<T>;
  static constexpr int kRowBytes = kColumns * kChunkBytes, kBytes = kRows * kRowBytes;

  /// Where chunk `column` of `row` starts, in bytes. From there, without working it out again:
  /// + n kRowBytes is n rows on, n a multiple of kPeriod; ^ n kChunkBytes is n columns on, if no
  /// bit of n is one of the column's.
  static MIXPL_DEVICE int offset(int row, int column) {
    return row * kRowBytes + (column ^ permutation(row)) * kChunkBytes;
  }
  static constexpr int kPeriod = kOrder == Order::reduction || sizeof(T) == 2 ? 8 : 4;

  /// What a column's number is xored with. That of two rows without a common bit is the xor of
  /// both.
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
