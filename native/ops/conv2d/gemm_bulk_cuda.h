// The matrix product of gemm_mainloop_cuda.h with tiles that the hardware copies (TMA, sm_90a).
// Four warps of a block only start copies, eight multiply. Blocks in pairs, one below the other,
// need the same tiles of the right operand: each copies half of them for both.
//
// What a Problem must say beside: how its operands lie on the host,
//   left_map(), right_map()          TensorMaps of a level
//   bulk_fits()                      whether they can be copied so
// and on the device, by its Part, who copies them step by step:
//   BulkLeft, BulkRight              (part, row or column, first step), then
//   load(to, map, barrier)           starts the copies of the next step
#pragma once

#include "core/cuda/bulk_copies.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/gemm_loaders_cuda.h"
#include "ops/conv2d/gemm_mainloop_cuda.h"

namespace mixpl::cuda {

constexpr int kBulkPixels = 64;  // elements along the rows of a tile: 128 bytes

/// Both blocks of a pair.
constexpr uint16_t kPair = 3;

inline PixelAxis pixel_axis(const ConvAxis& axis, int size) {
  return {size, axis.positions, axis.stride, axis.lower()};
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
    const int first = kExtent / 2 * static_cast<int>(cluster_rank());
    copy_box(to + first * kSwizzleBytes, map, barrier,
             {kBulkPixels * at.low, at.high * width_ + at.middle, column_ + first}, kPair);
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
    constexpr int kHalf = kExtent / kBulkPixels / 2;
    const int first = kHalf * static_cast<int>(cluster_rank());
#pragma unroll
    for (int i = first; i < first + kHalf; ++i)
      copy_box(to + i * Config::kStep * kSwizzleBytes, map, barrier,
               {column_ + kBulkPixels * i, at.high * width_ + at.middle, kBulkPixels * at.low},
               kPair);
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
  static constexpr int kHalf = kExtent / kBulkPixels / 2;

 public:
  MIXPL_DEVICE BulkPatchColumns(const Patches<T>& p, int column, int step)
      : down_(p.down),
        right_(p.right),
        radix_(p.row_radix()),
        step_(radix_.digits(Config::kStep)),
        at_(radix_.digits(step * Config::kStep)) {
    const int first = kHalf * static_cast<int>(cluster_rank());
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
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
    const int first = kHalf * static_cast<int>(cluster_rank());
#pragma unroll
    for (int i = 0; i < kHalf; ++i)
      copy_pixels(to + (first + i) * Config::kStep * kSwizzleBytes, map, barrier,
                  {channel_[i], x, y, at_.high}, {x_[i], y_[i]}, kPair);
    radix_.add(at_, step_);
  }

 private:
  const ConvAxis down_, right_;
  Radix radix_;
  Digits step_, at_;
  int channel_[kHalf], x_[kHalf], y_[kHalf];
};

struct BulkMaps {
  TensorMap left[kMostConvLevels], right[kMostConvLevels];
};

template <class Problem>
constexpr int kBulkRing = Problem::Config::Tile::kStages* kStageBytes<Problem>;
template <class Problem>
constexpr int kBulkSharedBytes =
    kBulkRing<Problem> + 2 * Problem::Config::Tile::kStages* static_cast<int>(sizeof(BulkBarrier));

/// The product of one block, in shared memory when this returns.
template <class Problem>
MIXPL_DEVICE const float* multiply_bulk_tiles(const GemmBlock<Problem>& at, const BulkMaps& maps,
                                              char* shared) {
  using Left = typename Problem::Left;
  using Right = typename Problem::Right;
  using Tile = typename Problem::Config::Tile;
  constexpr int kStages = Tile::kStages, kProducts = Tile::kThreads / 32;
  BulkBarrier* const filled = reinterpret_cast<BulkBarrier*>(shared + kBulkRing<Problem>);
  BulkBarrier* const drained = filled + kStages;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < kStages; ++i) {
      filled[i].init(1);
      drained[i].init(2 * kProducts);  // warps of both blocks
    }
    publish_barriers();
  }
  sync_cluster();
  const int first_step = at.first / Problem::Config::kStep;
  Product<typename Problem::Config, Left::Shared::kOrder, Right::Shared::kOrder> product;
  if (warp() == kProducts) {
    if (lane() == 0) {
      typename Problem::BulkLeft left = at.part.bulk_left(at.row, first_step);
      typename Problem::BulkRight right = at.part.bulk_right(at.column, first_step);
      for (int step = 0, stage = 0, round = 0; step < at.steps; ++step) {
        if (round > 0) drained[stage].wait(round - 1 & 1);
        char* to = shared + stage * kStageBytes<Problem>;
        filled[stage].arrive_and_expect(kStageBytes<Problem>);
        left.load(to, &maps.left[at.level], &filled[stage]);
        right.load(to + Left::Shared::kBytes, &maps.right[at.level], &filled[stage]);
        if (++stage == kStages) stage = 0, ++round;
      }
    }
  } else if (warp() < kProducts) {
    const auto release = [&](int stage) {
      if (lane() < 2) drained[stage].arrive_at(lane());
    };
    if (at.steps > 0) {
      filled[0].wait(0);
      product.begin(shared, shared + Left::Shared::kBytes);
      for (int step = 1, stage = 1 % kStages, round = 0, last = 0; step < at.steps; ++step) {
        filled[stage].wait(round & 1);
        const char* tile = shared + stage * kStageBytes<Problem>;
        product.step(tile, tile + Left::Shared::kBytes);
        product.settle();
        release(last);
        last = stage;
        if (++stage == kStages) stage = 0, ++round;
      }
      product.finish();
    } else {
      product.clear();
    }
  }
  sync_block();  // nobody reads the tiles any more
  float* sums = reinterpret_cast<float*>(shared);
  if (warp() < kProducts) product.write(sums);
  sync_block();
  return sums;
}

/// As gemm_kernel.
template <class Problem>
MIXPL_KERNEL __launch_bounds__(Problem::Config::Tile::kThreads + Problem::Config::Tile::kCopying, 1)
    MIXPL_CLUSTER(2) bulk_gemm_kernel(const __grid_constant__ BulkMaps maps, Problem problem,
                                      GemmGrid grid, float* parts) {
  MIXPL_DYNAMIC_SHARED(char, shared);
  const unsigned tiles = static_cast<unsigned>(grid.tiles());
  const GemmBlock<Problem> at(problem, grid, blockIdx.x % tiles, blockIdx.x / tiles);
  const float* sums = multiply_bulk_tiles<Problem>(at, maps, shared);
  hand_on(at, sums, parts);
  sync_cluster();  // the other block may still arrive at this one's barriers
}

/// As multiply().
template <class Problem>
void multiply_bulk(const Problem& problem, const BulkMaps& maps, const GemmGrid& grid,
                   Device device) {
  using Tile = typename Problem::Config::Tile;
  const Tensor parts = parts_of<Problem>(grid, device);
  launch(bulk_gemm_kernel<Problem>, dim3(static_cast<unsigned>(grid.tiles() * grid.splits)),
         dim3(Tile::kThreads + Tile::kCopying), kBulkSharedBytes<Problem>, maps, problem, grid,
         parts.defined() ? parts.data<float>() : static_cast<float*>(nullptr));
  add_parts(problem, grid, parts);
}

}  // namespace mixpl::cuda
