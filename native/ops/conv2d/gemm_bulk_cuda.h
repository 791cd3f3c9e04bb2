// The matrix product of gemm_mainloop_cuda.h with tiles that the hardware copies (TMA, sm_90a).
// One warp of a block only starts copies, eight multiply. Blocks in pairs, one below the other,
// need the same tiles of the right operand: each copies half of them for both. Whether operands can
// be copied so: fits_bulk (conv2d_size_cuda.h).
//
// What a Problem must say beside: on the host, how its operands lie at its level,
//   left_map(), right_map()          TensorMaps
// and on the device, by its Part, who copies them,
//   bulk_left(row, step), bulk_right(column, step)   BulkLeft, BulkRight: from this step on
//     load(to, map, barrier)                           starts the copies of the next step
#pragma once

#include "core/cuda/bulk_copies.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_mainloop_cuda.h"

namespace mixpl::cuda {

constexpr int kBulkPixels = 64;  // elements along the rows of a tile: 128 bytes

/// What this block copies of the right operand for all blocks of its cluster: its share of the
/// kExtent columns; or of the step's terms, where rows of the tile hold no more than one block's.
template <class Config, int kExtent>
struct BulkShare {
  static constexpr int kCluster = Config::Tile::kCluster;
  static constexpr int kColumns = kExtent / kCluster, kPieces = kColumns / kBulkPixels;
  static constexpr int kTerms = kPieces > 0 ? Config::kStep : Config::kStep / kCluster;
  static constexpr uint16_t kBlocks = (1 << kCluster) - 1;
  static MIXPL_DEVICE int column() { return static_cast<int>(cluster_rank()) * kColumns; }
};

inline PixelAxis pixel_axis(const ConvAxis& axis, int size) {
  return {size, axis.stride, axis.lower(), axis.upper(size)};
}
template <typename T>
TensorMap patch_map(const Patches<T>& p, int pixels) {
  return pixel_map(p.source, p.images, pixel_axis(p.down, p.height), pixel_axis(p.right, p.width),
                   p.channels, p.pitch, pixels);
}

/// Steps over (tap down, tap right, 64 channels).
struct BulkTaps {
  Radix radix;
  Digits at;

  template <typename T>
  MIXPL_DEVICE BulkTaps(const Patches<T>& p, int step)
      : radix(p.right.taps, p.chunks()), at(radix.digits(step)) {}
  MIXPL_DEVICE void next() { radix.add(at, {0, 0, 1}); }
};

/// Rows are positions of the result, the reduction runs over taps and channels.
template <class Config, int kExtent>
class BulkPatchRows {
  using T = typename Config::T;

 public:
  MIXPL_DEVICE BulkPatchRows(const Patches<T>& p, int row, int step)
      : taps_(p, step), down_(p.down), right_(p.right) {
    const Digits at = p.row_radix().digits(row);
    x_ = at.low * p.right.stride + p.right.lower();
    y_ = at.middle * p.down.stride + p.down.lower();
    image_ = at.high;
  }
  MIXPL_DEVICE void load(char* to, const TensorMap* map, BulkBarrier* barrier) {
    const Digits& at = taps_.at;
    copy_pixels(to, map, barrier, {kBulkPixels * at.low, x_, y_, image_},
                {right_.offset(at.middle), down_.offset(at.high)});
    taps_.next();
  }

 private:
  BulkTaps taps_;
  const ConvAxis down_, right_;
  int x_, y_, image_;
};

/// Filters [K, taps, C] whose rows are columns of the result.
template <class Config, int kExtent>
class BulkFilterRows {
  using T = typename Config::T;

 public:
  MIXPL_DEVICE BulkFilterRows(const Patches<T>& p, int column, int step)
      : taps_(p, step), width_(p.right.taps), column_(column) {}
  MIXPL_DEVICE void load(char* to, const TensorMap* map, BulkBarrier* barrier) {
    const Digits& at = taps_.at;
    using Share = BulkShare<Config, kExtent>;
    const int first = Share::column();
    copy_box(to + first * kSwizzleBytes, map, barrier,
             {kBulkPixels * at.low, at.high * width_ + at.middle, column_ + first}, Share::kBlocks);
    taps_.next();
  }

 private:
  BulkTaps taps_;
  int width_, column_;
};

/// Filters [K, taps, C], rows of C along the result: the reduction runs over taps and K.
template <class Config, int kExtent>
class BulkFilterColumns {
  using T = typename Config::T;

 public:
  MIXPL_DEVICE BulkFilterColumns(const Patches<T>& dy, int column, int step)
      : taps_(dy, step), width_(dy.right.taps), column_(column) {}
  MIXPL_DEVICE void load(char* to, const TensorMap* map, BulkBarrier* barrier) {
    const Digits& at = taps_.at;
    using Share = BulkShare<Config, kExtent>;
    const int tap = at.high * width_ + at.middle, term = kBulkPixels * at.low;
    if constexpr (Share::kPieces == 0) {
      const int first = static_cast<int>(cluster_rank()) * Share::kTerms;
      copy_box(to + first * kSwizzleBytes, map, barrier, {column_, tap, term + first},
               Share::kBlocks);
    } else {
      const int first = Share::column() / kBulkPixels;
#pragma unroll
      for (int i = first; i < first + Share::kPieces; ++i)
        copy_box(to + i * Config::kStep * kSwizzleBytes, map, barrier,
                 {column_ + kBulkPixels * i, tap, term}, Share::kBlocks);
    }
    taps_.next();
  }

 private:
  BulkTaps taps_;
  int width_, column_;
};

/// A matrix [reduction, columns] whose columns are rows of the result.
template <class Config, int kExtent>
class BulkMatrixColumns {
 public:
  MIXPL_DEVICE BulkMatrixColumns(int row, int step) : row_(row), term_(step * Config::kStep) {}
  MIXPL_DEVICE void load(char* to, const TensorMap* map, BulkBarrier* barrier) {
#pragma unroll
    for (int i = 0; i < kExtent / kBulkPixels; ++i)
      copy_box(to + i * Config::kStep * kSwizzleBytes, map, barrier,
               {row_ + kBulkPixels * i, term_, 0});
    term_ += Config::kStep;
  }

 private:
  int row_, term_;
};

/// Columns are taps and channels (a multiple of 64), the reduction runs over positions.
template <class Config, int kExtent>
class BulkPatchColumns {
  using T = typename Config::T;
  using Share = BulkShare<Config, kExtent>;

 public:
  MIXPL_DEVICE BulkPatchColumns(const Patches<T>& p, int column, int step)
      : down_(p.down),
        right_(p.right),
        radix_(p.row_radix()),
        step_(radix_.digits(Config::kStep)),
        at_(radix_.digits(step * Config::kStep)) {
    const int first = Share::column() / kBulkPixels;
#pragma unroll
    for (int i = 0; i < Share::kPieces; ++i) {
      Digits column_at = p.column_radix().digits(column + kBulkPixels * (first + i));
      if (column_at.high >= p.down.taps) column_at = {0, 0, 0};  // beyond the last column
      channel_[i] = column_at.low;
      x_[i] = p.right.offset(column_at.middle);
      y_[i] = p.down.offset(column_at.high);
    }
  }
  MIXPL_DEVICE void load(char* to, const TensorMap* map, BulkBarrier* barrier) {
    const int x = at_.low * right_.stride + right_.lower();
    const int y = at_.middle * down_.stride + down_.lower();
    const int first = Share::column() / kBulkPixels;
#pragma unroll
    for (int i = 0; i < Share::kPieces; ++i)
      copy_pixels(to + (first + i) * Config::kStep * kSwizzleBytes, map, barrier,
                  {channel_[i], x, y, at_.high}, {x_[i], y_[i]}, Share::kBlocks);
    radix_.add(at_, step_);
  }

 private:
  const ConvAxis down_, right_;
  Radix radix_;
  Digits step_, at_;
  int channel_[Share::kPieces], x_[Share::kPieces], y_[Share::kPieces];
};

struct BulkMaps {
  TensorMap left[kMostConvLevels], right[kMostConvLevels];
};

template <class Problem>
constexpr int kBulkSharedBytes =
    kSharedBytes<Problem> +
    2 * Problem::Config::Tile::kStages* static_cast<int>(sizeof(BulkBarrier));

/// Those that multiply, and one warp that copies, or four.
template <class Tile>
constexpr int kBulkThreads = Tile::kThreads + (Tile::kMovesRegisters ? 128 : 32);

/// Counts through the stages of the ring; a barrier's phase is over once in every round.
template <int kStages>
struct BulkRing {
  int stage = 0;
  uint32_t round = 0;

  MIXPL_DEVICE void next() {
    if (++stage == kStages) stage = 0, ++round;
  }
};

/// As gemm_kernel, but a block takes one tile after the other: while one is stored the next one's
/// operands are on their way.
template <class Problem>
MIXPL_KERNEL __launch_bounds__(kBulkThreads<typename Problem::Config::Tile>,
                               Problem::Config::Tile::kBlocksPerSm)
    MIXPL_CLUSTER(Problem::Config::Tile::kCluster)
        bulk_gemm_kernel(const __grid_constant__ BulkMaps maps, Problem problem, GemmGrid grid,
                         float* parts) {
  using Left = typename Problem::Left;
  using Right = typename Problem::Right;
  using Tile = typename Problem::Config::Tile;
  constexpr int kStages = Tile::kStages, kProducts = Tile::kThreads / 32;
  constexpr int kBytes = kStageBytes<Problem>, kLeftBytes = Left::Shared::kBytes;
  MIXPL_DYNAMIC_SHARED(char, shared);
  BulkBarrier* const filled = reinterpret_cast<BulkBarrier*>(shared + kSharedBytes<Problem>);
  BulkBarrier* const drained = filled + kStages;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      filled[i].init(1);
      drained[i].init(Tile::kCluster * kProducts);  // warps of all blocks
    }
    publish_barriers();
  }
  sync_cluster();
  const unsigned all = static_cast<unsigned>(grid.tiles()) * grid.splits;
  BulkRing<kStages> ring;
  if (warp() >= kProducts) {
    if constexpr (Tile::kMovesRegisters) give_registers<Tile::kCopyingRegisters>();
    if (warp() == kProducts && lane() == 0) {
      for (unsigned index = blockIdx.x; index < all; index += gridDim.x) {
        const GemmBlock<Problem> at(problem, grid, index);
        const int first_step = at.first / Problem::Config::kStep;
        typename Problem::BulkLeft left = at.part.bulk_left(at.row, first_step);
        typename Problem::BulkRight right = at.part.bulk_right(at.column, first_step);
        for (int step = 0; step < at.steps; ++step, ring.next()) {
          BulkBarrier* const barrier = filled + ring.stage;
          char* const to = shared + ring.stage * kBytes;
          if (ring.round > 0) drained[ring.stage].wait(ring.round - 1 & 1);
          barrier->arrive_and_expect(kBytes);
          left.load(to, &maps.left[at.level], barrier);
          right.load(to + kLeftBytes, &maps.right[at.level], barrier);
        }
      }
    }
  } else {
    if constexpr (Tile::kMovesRegisters) take_registers<Tile::kRegisters>();
    const auto release = [&](int stage) {
      if (lane() < Tile::kCluster) drained[stage].arrive_at(lane());
    };
    for (unsigned index = blockIdx.x; index < all; index += gridDim.x) {
      const int steps = GemmBlock<Problem>(problem, grid, index).steps;
      Product<typename Problem::Config, Left::Shared::kOrder, Right::Shared::kOrder> product;
      filled[ring.stage].wait(ring.round & 1);
      product.begin(shared + ring.stage * kBytes, shared + ring.stage * kBytes + kLeftBytes);
      int last = ring.stage;
      ring.next();
      for (int step = 1; step < steps; ++step, ring.next()) {
        filled[ring.stage].wait(ring.round & 1);
        const char* tile = shared + ring.stage * kBytes;
        product.step(tile, tile + kLeftBytes);
        product.settle();
        release(last);
        last = ring.stage;
      }
      // Where the sums go is worked out while the last products run, not kept since the first.
      const GemmBlock<Problem> at(problem, grid, only_here(index));
      product.finish();
      release(last);
      hand_on(at, product, shared + kRingBytes<Problem>, parts, index);
    }
  }
  sync_warp();     // one lane copies, the others are here already
  sync_cluster();  // the other block may still arrive at this one's barriers
}

/// As multiply().
template <class Problem>
void multiply_bulk(const Problem& problem, const BulkMaps& maps, const GemmGrid& grid,
                   Device device) {
  using Tile = typename Problem::Config::Tile;
  const Tensor parts = parts_of<Problem>(grid, device);
  const int64_t room = multiprocessors() * Tile::kBlocksPerSm / Tile::kCluster * Tile::kCluster;
  const int64_t blocks = std::min<int64_t>(grid.tiles() * grid.splits, room);
  launch(bulk_gemm_kernel<Problem>, dim3(static_cast<unsigned>(blocks)), dim3(kBulkThreads<Tile>),
         kBulkSharedBytes<Problem>, maps, problem, grid,
         parts.defined() ? parts.data<float>() : static_cast<float*>(nullptr));
  add_parts(problem, grid, parts);
}

}  // namespace mixpl::cuda
