// The arithmetic of a matrix product: what a warp does with one step of both operands. Three
// classes of one form, on the tensor cores (mma.sync, wgmma) and in plain f32:
//   step(left, right)  adds the product of two tiles in shared memory
//   write(sums)        puts the block's sums into an f32 tile of row pitch kSumPitch; wgmma has
//                      for_each_chunk() instead
#pragma once

#include <bit>
#include <type_traits>

#include "ops/conv2d/gemm_tile_cuda.h"

namespace mixpl::cuda {

/// Floats between rows of the sums in shared memory: eight more than a row has, so that the rows a
/// warp writes at once fall on different banks.
template <class Tile>
constexpr int kSumPitch = Tile::kN + 8;

/// mma.sync of 16 x 8 results by 32 bytes of the reduction. Fragment layouts: PTX ISA, "Matrix
/// fragments for mma.m16n8k16" (bf16) and "mma.m16n8k8" (tf32); in words of 32 bits they agree.
template <class Config, Order kLeft, Order kRight>
class TensorProduct {
  using T = typename Config::T;
  using Tile = typename Config::Tile;
  using Left = SharedTile<Config, kLeft, Tile::kM>;
  using Right = SharedTile<Config, kRight, Tile::kN>;
  static constexpr int kRows = Tile::kWarpM / 16, kColumns = Tile::kWarpN / 8;

 public:
  MIXPL_DEVICE TensorProduct()
      : left_(lane_offset<Left, true>(Tile::warp_row())),
        right_(lane_offset<Right, false>(Tile::warp_column())) {}

  MIXPL_DEVICE void step(const char* left, const char* right) {
#pragma unroll
    for (int k = 0; k < Tile::kStepChunks / 2; ++k) {
      uint32_t a[kRows][4], b[kColumns / 2][4];
#pragma unroll
      for (int i = 0; i < kRows; ++i) load<Left, true>(left, left_, i, k, a[i]);
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) load<Right, false>(right, right_, j, k, b[j]);
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          if constexpr (sizeof(T) == 2)
            mma_bf16_m16n8k16(sums_[i][j], a[i], pair);
          else
            mma_tf32_m16n8k8(sums_[i][j], a[i], pair);
        }
    }
  }

  MIXPL_DEVICE void write(float* sums) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        float* to = sums + (Tile::warp_row() + 16 * i + lane() / 4) * kSumPitch<Tile> +
                    Tile::warp_column() + 8 * j + lane() % 4 * 2;
        const float(&d)[4] = sums_[i][j];
        store_vec(to, Vec<float, 2>{d[0], d[1]});
        store_vec(to + 8 * kSumPitch<Tile>, Vec<float, 2>{d[2], d[3]});
      }
  }

 private:
  const int left_, right_;  // where this lane reads of the first fragments, in bytes
  float sums_[kRows][kColumns][4] = {};

  // A fragment is four blocks of 8 by 16 bytes: two along the result by two along the reduction.
  // The left operand counts them along the result first, the right one along the reduction.
  template <bool kIsLeft>
  static MIXPL_DEVICE int along_result(int block) {
    return kIsLeft ? block & 1 : block >> 1;
  }

  template <class Shared, bool kIsLeft>
  static MIXPL_DEVICE int lane_offset(int extent) {
    // For ldmatrix, lane 8 i + r says where row r of block i is.
    const int block = lane() >> 3, row = lane() & 7;
    const int result = along_result<kIsLeft>(block), reduction = along_result<!kIsLeft>(block);
    if constexpr (Shared::kOrder == Order::reduction)
      return Shared::offset(extent + 8 * result + row, reduction);
    else if constexpr (sizeof(T) == 2)
      return Shared::offset(8 * reduction + row, extent / 8 + result);
    else  // element (lane / 4, lane % 4) of a block, by itself
      return Shared::offset(lane() % 4, extent / 4 + lane() / 16) + lane() / 4 % 4 * 4;
  }

  // The `fragment`-th of the warp, 16 further along the result; `k`: 32 bytes of the reduction.
  // Offsets grow as SharedTile::offset says.
  template <class Shared, bool kIsLeft>
  static MIXPL_DEVICE void load(const char* tile, int first, int fragment, int k,
                                uint32_t (&to)[4]) {
    if constexpr (Shared::kOrder == Order::reduction) {
      ldmatrix_x4(to, tile + (first ^ 2 * k * kChunkBytes) + 16 * fragment * Shared::kRowBytes);
    } else if constexpr (sizeof(T) == 2) {
      ldmatrix_x4_trans(to,
                        tile + (first ^ 2 * fragment * kChunkBytes) + 16 * k * Shared::kRowBytes);
    } else {
      // There is no transposing ldmatrix for 32 bits.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int columns = 4 * fragment + 2 * along_result<kIsLeft>(i);
        const int rows = 8 * k + 4 * along_result<!kIsLeft>(i);
        to[i] = *reinterpret_cast<const uint32_t*>(tile + (first ^ columns * kChunkBytes) +
                                                   rows * Shared::kRowBytes);
      }
    }
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (uint32_t& word : to) word = to_tf32(std::bit_cast<float>(word));
    }
  }
};

/// Exact f32: the lanes of a warp stand in 8 rows of 4, and each owns every 8th row and 4th column
/// of the warp's part; or, where a row of shared memory runs along the result, runs of four.
template <class Config, Order kLeft, Order kRight>
class FloatProduct {
  using Tile = typename Config::Tile;
  using Left = SharedTile<Config, kLeft, Tile::kM>;
  using Right = SharedTile<Config, kRight, Tile::kN>;
  static constexpr int kRows = Tile::kWarpM / 8, kColumns = Tile::kWarpN / 4;

 public:
  MIXPL_DEVICE FloatProduct()
      : left_(lane_offset<Left, 8>(Tile::warp_row(), lane() / 4)),
        right_(lane_offset<Right, 4>(Tile::warp_column(), lane() % 4)) {}

  MIXPL_DEVICE void step(const char* left, const char* right) {
#pragma unroll 1  // unrolled, the loads of all chunks would be moved to the front, and spilt
    for (int chunk = 0; chunk < Tile::kStepChunks; ++chunk) {
      float a[kRows][4];
      load<Left, 8>(left, left_, 0, chunk, a);
#pragma unroll
      for (int first = 0; first < kColumns; first += 4) {  // all columns at once would not fit
        float b[4][4];
        load<Right, 4>(right, right_, first, chunk, b);
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int i = 0; i < kRows; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
              sums_[i][first + j] = fmaf(a[i][k], b[j][k], sums_[i][first + j]);
      }
    }
  }

  MIXPL_DEVICE void write(float* sums) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      float* row = sums + (Tile::warp_row() + own<kLeft, 8>(i, lane() / 4)) * kSumPitch<Tile> +
                   Tile::warp_column();
#pragma unroll
      for (int j = 0; j < kColumns; ++j) row[own<kRight, 4>(j, lane() % 4)] = sums_[i][j];
    }
  }

 private:
  const int left_, right_;  // where this lane reads first, in bytes
  float sums_[kRows][kColumns] = {};

  // The i-th row (or column) of the `at`-th of `kLanes` lanes.
  template <Order kOrder, int kLanes>
  static MIXPL_DEVICE int own(int i, int at) {
    return kOrder == Order::reduction ? kLanes * i + at : i / 4 * 4 * kLanes + 4 * at + i % 4;
  }
  template <class Shared, int kLanes>
  static MIXPL_DEVICE int lane_offset(int extent, int at) {
    return Shared::kOrder == Order::reduction ? Shared::offset(extent + at, 0)
                                              : Shared::offset(0, extent / 4 + at);
  }

  // Four elements of the reduction of kCount rows this lane owns, from its `first`-th on. Offsets
  // grow as SharedTile::offset says.
  template <class Shared, int kLanes, int kCount>
  static MIXPL_DEVICE void load(const char* tile, int lane_first, int first, int chunk,
                                float (&to)[kCount][4]) {
    if constexpr (Shared::kOrder == Order::reduction) {
      const int at = lane_first ^ chunk * kChunkBytes;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int rows = kLanes * (first + i);
        const auto v = load_vec<float, 4>(floats(
            tile + (at ^ Shared::permutation(rows) * kChunkBytes) + rows * Shared::kRowBytes));
#pragma unroll
        for (int k = 0; k < 4; ++k) to[i][k] = v[k];
      }
    } else {
      tile += 4 * chunk * Shared::kRowBytes;
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (int i = 0; i < kCount; i += 4) {
          const int columns = (first + i) / 4 * kLanes ^ Shared::permutation(k);
          const auto v = load_vec<float, 4>(
              floats(tile + (lane_first ^ columns * kChunkBytes) + k * Shared::kRowBytes));
#pragma unroll
          for (int e = 0; e < 4; ++e) to[i + e][k] = v[e];
        }
    }
  }
  static MIXPL_DEVICE const float* floats(const char* p) {
    return reinterpret_cast<const float*>(p);
  }
};

/// v; what follows from it is worked out after this call, not before a loop around it, where it
/// would take registers all the time.
MIXPL_DEVICE int only_here(int v) {
#if !defined(MIXPL_CUDA_EMULATED)
  asm volatile("" : "+r"(v));
#endif
  return v;
}

/// Eight rows of 64 columns of a warpgroup's sums in shared memory. The even quarters of a row come
/// first, then the odd ones, permuted so that lanes of neither form meet in a bank: writing, four
/// rows by two quarters at once; reading, eight quarters of one kind.
struct SumPiece {
  static constexpr int kRows = 8, kColumns = 64, kBytes = kRows * kColumns * 4;
  const char* sums;

  /// Where a row's quarter (four columns) begins, in bytes; ^ 16 n is eight n columns on, if no bit
  /// of n is one of the column's.
  static MIXPL_DEVICE int offset(int row, int column) {
    const int odd = column / 4 % 2;
    return row * (kColumns * 4) + odd * (kColumns * 2) + ((2 * (row & 3) + odd) ^ column / 8) * 16;
  }
  MIXPL_DEVICE Vec<float, 4> quarter(int row, int column) const {
    return load_vec<float, 4>(reinterpret_cast<const float*>(sums + offset(row, column)));
  }
  MIXPL_DEVICE float element(int row, int column) const {
    return reinterpret_cast<const float*>(sums + offset(row, column))[column % 4];
  }
};

/// wgmma: a warpgroup multiplies 64 rows by all columns of the tile, 16 terms at a time. step()
/// starts the product; settle() waits until at most Tile::kBehind steps are under way.
template <class Config, Order kLeft, Order kRight>
class WarpgroupProduct {
  using Tile = typename Config::Tile;
  using Left = SharedTile<Config, kLeft, Tile::kM>;
  using Right = SharedTile<Config, kRight, Tile::kN>;
  static_assert(Config::kArithmetic == Arithmetic::bf16);

 public:
  MIXPL_DEVICE void clear() {
#pragma unroll
    for (float& sum : sums_) sum = 0;
  }
  MIXPL_DEVICE void begin(const char* left, const char* right) { multiply(left, right, false); }
  MIXPL_DEVICE void step(const char* left, const char* right) { multiply(left, right, true); }
  MIXPL_DEVICE void settle() { wgmma_wait<Tile::kBehind>(); }
  MIXPL_DEVICE void finish() {
    wgmma_wait<0>();
    wgmma_end(sums_);
  }

  /// Calls f(row, column, sums) for pieces of the warp's part of the tile, which pass through its
  /// part of `shared` one after the other: lanes of a quad hold two columns of two rows each.
  template <class F>
  MIXPL_DEVICE void for_each_piece(char* shared, F&& f) const {
    char* const piece = shared + warp() * SumPiece::kBytes;
    const int lane = only_here(cuda::lane());
    const int to = SumPiece::offset(lane / 4, lane % 4 * 2) + lane % 2 * 8;
    const int row = first_row() + warp() % 4 * 16;
#pragma unroll
    for (int below = 0; below < 16; below += 8)
#pragma unroll
      for (int column = 0; column < Tile::kN; column += SumPiece::kColumns) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const float* d = sums_ + (column / 2 + 4 * j) + below / 4;
          store_vec(reinterpret_cast<float*>(piece + (to ^ 16 * j)), Vec<float, 2>{d[0], d[1]});
        }
        sync_warp();
        f(row + below, column, SumPiece{piece});
        sync_warp();
      }
  }

 private:
  float sums_[Tile::kN / 2];

  MIXPL_DEVICE void multiply(const char* left, const char* right, bool add) {
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < Tile::kStepChunks / 2; ++k)
      wgmma_bf16<kLeft == Order::result, kRight == Order::result>(
          sums_, descriptor<Left>(left, first_row(), k), descriptor<Right>(right, 0, k),
          add || k > 0);
    wgmma_commit();
  }
  static MIXPL_DEVICE int first_row() { return warp() / 4 * 64; }

  template <class Shared>
  static MIXPL_DEVICE uint64_t descriptor(const char* tile, int extent, int k) {
    if constexpr (Shared::kOrder == Order::reduction)
      return wgmma_descriptor(tile + extent * kSwizzleBytes + k * 2 * kChunkBytes);
    else
      return wgmma_descriptor(tile + (extent / 64 * Shared::kRows + 16 * k) * kSwizzleBytes,
                              Shared::kRows * kSwizzleBytes);
  }
};

template <class Config, Order kLeft, Order kRight>
using Product = std::conditional_t<
    Config::Tile::kWarpgroups, WarpgroupProduct<Config, kLeft, kRight>,
    std::conditional_t<Config::kArithmetic == Arithmetic::f32, FloatProduct<Config, kLeft, kRight>,
                       TensorProduct<Config, kLeft, kRight>>>;

}  // namespace mixpl::cuda
