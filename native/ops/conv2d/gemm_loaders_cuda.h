// Operands of a matrix product on their way into shared memory. A loader is made for one block;
// every load(stage) starts the copies of the next step into a tile of the type `Shared`. What does
// not exist (padding, the end of an axis) is zero. All threads of the block take part, each with
// the same chunks of the tile at every step. The products wait for these instructions, too: what is
// the same at every step is worked out before, and conditions are joined without branches.
#pragma once

#include "ops/conv2d/conv2d_axis.h"
#include "ops/conv2d/gemm_tile_cuda.h"

namespace mixpl::cuda {

/// Contiguous elements of a source, or as many zeros.
template <typename T>
struct Run {
  const T* from;
  bool exists;

  MIXPL_DEVICE Run(const T* from, bool exists) : from(from), exists(exists) {}
};

/// Fills a 16-byte chunk of shared memory from runs of kGranule bytes: next() gives one after the
/// other. Runs below four bytes cannot be copied asynchronously.
template <typename T, int kGranule, class Next>
MIXPL_DEVICE void copy_chunk(char* to, const T* any, Next&& next) {
  if constexpr (kGranule == kChunkBytes) {
    const Run<T> run = next();
    cp_async16(to, run.exists ? run.from : any, run.exists ? kChunkBytes : 0);
  } else if constexpr (kGranule == 4) {
#pragma unroll
    for (int byte = 0; byte < kChunkBytes; byte += 4) {
      const Run<T> run = next();
      cp_async4(to + byte, run.exists ? run.from : any, run.exists ? 4 : 0);
    }
  } else {
    static_assert(kGranule == sizeof(T));
    Vec<T, kChunk<T>> values;
#pragma unroll
    for (int e = 0; e < kChunk<T>; ++e) {
      const Run<T> run = next();
      values[e] = run.exists ? load_read_only(run.from) : T(0.0f);
    }
    store_vec(reinterpret_cast<T*>(to), values);
  }
}

/// How a block's threads share a tile: thread t has one column of chunks, in every kEvery-th row.
template <class Shared, int kThreads>
struct Share {
  static constexpr int kEvery = kThreads / Shared::kColumns, kRows = Shared::kRows / kEvery;
  static_assert(kThreads % Shared::kColumns == 0 && Shared::kRows % kEvery == 0);
  static MIXPL_DEVICE int column() { return threadIdx.x % Shared::kColumns; }
  static MIXPL_DEVICE int row(int i) { return threadIdx.x / Shared::kColumns + i * kEvery; }
  /// Where the first of them lies, in bytes; the next ones are kSkip apart.
  static MIXPL_DEVICE int first() { return Shared::offset(row(0), column()); }
  static constexpr int kSkip = kEvery * Shared::kRowBytes;
  static_assert(kRows == 1 || kEvery % Shared::kPeriod == 0);
};

/// A dense matrix [rows, columns], row by row. In the order `reduction` the columns are the
/// reduction, otherwise the rows are.
template <class Config, Order kOrder, int kExtent, int kGranule>
class MatrixLoader {
  using T = typename Config::T;

 public:
  using Shared = SharedTile<Config, kOrder, kExtent>;

  /// The tile starts at (`first_row`, `first_column`).
  MIXPL_DEVICE MatrixLoader(const T* matrix, int rows, int columns, int pitch, int first_row,
                            int first_column)
      : matrix_(matrix),
        rows_(rows),
        columns_(columns),
        pitch_(pitch),
        row_(first_row + Mine::row(0)),
        column_(first_column + Mine::column() * kChunk<T>),
        to_(Mine::first()),
        from_(matrix + static_cast<int64_t>(row_) * pitch + column_) {}

  MIXPL_DEVICE void load(char* stage) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) {
      const bool row_exists = row_ + i * Mine::kEvery < rows_;
      const T* from = from_ + i * Mine::kEvery * pitch_;
      int column = column_;
      copy_chunk<T, kGranule>(stage + to_ + i * Mine::kSkip, matrix_, [&] {
        const Run<T> run(from, row_exists & (column < columns_));
        from += kGranule / sizeof(T);
        column += kGranule / sizeof(T);
        return run;
      });
    }
    (kOrder == Order::reduction ? column_ : row_) += Config::kStep;
    from_ +=
        kOrder == Order::reduction ? Config::kStep : Config::kStep * static_cast<int64_t>(pitch_);
  }

 private:
  using Mine = Share<Shared, Config::Tile::kThreads>;
  const T* matrix_;
  int rows_, columns_, pitch_, row_, column_, to_;
  const T* from_;  // the first chunk of the next step
};

/// What a convolution reads, one group of it: [images, height, width, channels], `pitch` elements
/// between pixels. Its patches are a matrix with one row a position of the result (image, i, j) and
/// one column a (tap down, tap right, channel).
template <typename T>
struct Patches {
  const T* source;
  int images, height, width, pitch, channels;
  ConvAxis down, right;

  MIXPL_DEVICE int rows() const { return images * down.positions * right.positions; }
  MIXPL_DEVICE int columns() const { return down.taps * right.taps * channels; }
  /// Of a sum as it is multiplied.
  template <class Config>
  MIXPL_DEVICE int terms() const {
    return Config::Tile::kBulk ? down.taps * right.taps * chunks() * Config::kStep : columns();
  }
  /// Of 64 channels, the last one filled up.
  MIXPL_HD int chunks() const { return (channels + 63) / 64; }
  MIXPL_DEVICE Radix row_radix() const { return {down.positions, right.positions}; }
  MIXPL_DEVICE Radix column_radix() const { return {right.taps, channels}; }
  MIXPL_DEVICE bool holds(int y, int x) const {
    return (static_cast<unsigned>(y) < static_cast<unsigned>(height)) &
           (static_cast<unsigned>(x) < static_cast<unsigned>(width));
  }
  MIXPL_DEVICE int64_t image(int index) const {
    return static_cast<int64_t>(index) * (height * width * pitch);
  }
  MIXPL_DEVICE int element(int y, int x) const { return (y * width + x) * pitch; }
};

/// Patches as the left operand of a convolution: the reduction runs over taps and channels.
template <class Config, int kExtent, int kGranule>
class PatchLoader {
  using T = typename Config::T;

 public:
  using Shared = SharedTile<Config, Order::reduction, kExtent>;

  MIXPL_DEVICE PatchLoader(const Patches<T>& patches, int first_row, int first_column)
      : patches_(patches),
        radix_(patches.column_radix()),
        step_(radix_.digits(Config::kStep)),
        column_(radix_.digits(first_column + Mine::column() * kChunk<T>)),
        to_(Mine::first()) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) {
      const int row = first_row + Mine::row(i);
      const Digits at = patches.row_radix().digits(row);
      y_[i] = at.middle * patches.down.stride + patches.down.origin;
      x_[i] = at.low * patches.right.stride + patches.right.origin;
      pixel_[i] = (at.high * patches.height + y_[i]) * patches.width + x_[i];
      if (row >= patches.rows()) y_[i] = kNowhere;
    }
  }

  MIXPL_DEVICE void load(char* stage) {
    Digits at = column_;
    // A whole chunk is of one tap, which the rows have in common.
    int down = 0, right = 0, tap = 0;
    bool exists = false;
    const auto find_tap = [&] {
      down = at.high * patches_.down.step;
      right = at.middle * patches_.right.step;
      tap = patches_.element(down, right) + at.low;
      exists = at.high < patches_.down.taps;
    };
    if constexpr (kGranule == kChunkBytes) find_tap();
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) {
      at = column_;
      copy_chunk<T, kGranule>(stage + to_ + i * Mine::kSkip, patches_.source, [&] {
        if constexpr (kGranule < kChunkBytes) {
          find_tap();
          radix_.add(at, Digits{0, 0, kGranule / static_cast<int>(sizeof(T))});
        }
        const T* from = patches_.source + static_cast<int64_t>(pixel_[i]) * patches_.pitch + tap;
        return Run<T>(from, exists & patches_.holds(y_[i] + down, x_[i] + right));
      });
    }
    radix_.add(column_, step_);
  }

 private:
  using Mine = Share<Shared, Config::Tile::kThreads>;
  static constexpr int kNowhere = -(1 << 30);  // no tap reaches the source from here
  const Patches<T> patches_;
  Radix radix_;
  Digits step_, column_;
  int to_, y_[Mine::kRows], x_[Mine::kRows], pixel_[Mine::kRows];
};

/// Patches as the right operand of a weight gradient: the reduction runs over the positions of the
/// result, up to `end`.
template <class Config, int kExtent, int kGranule>
class PatchColumnLoader {
  using T = typename Config::T;

 public:
  using Shared = SharedTile<Config, Order::result, kExtent>;

  MIXPL_DEVICE PatchColumnLoader(const Patches<T>& patches, int first_row, int first_column)
      : patches_(patches),
        row_radix_(patches.row_radix()),
        column_radix_(patches.column_radix()),
        step_(row_radix_.digits(Config::kStep)),
        column_(column_radix_.digits(first_column + Mine::column() * kChunk<T>)),
        to_(Mine::first()) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) row_[i] = row_radix_.digits(first_row + Mine::row(i));
  }

  MIXPL_DEVICE void load(char* stage) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) {
      const int y = row_[i].middle * patches_.down.stride + patches_.down.origin;
      const int x = row_[i].low * patches_.right.stride + patches_.right.origin;
      const T* image = patches_.source + patches_.image(row_[i].high);
      Digits at = column_;
      copy_chunk<T, kGranule>(stage + to_ + i * Mine::kSkip, patches_.source, [&] {
        const int down = y + at.high * patches_.down.step;
        const int right = x + at.middle * patches_.right.step;
        const bool exists = (row_[i].high < patches_.images) & (at.high < patches_.down.taps) &
                            patches_.holds(down, right);
        const T* from = image + patches_.element(down, right) + at.low;
        if constexpr (kGranule < kChunkBytes)
          column_radix_.add(at, Digits{0, 0, kGranule / static_cast<int>(sizeof(T))});
        return Run<T>(from, exists);
      });
      row_radix_.add(row_[i], step_);
    }
  }

 private:
  using Mine = Share<Shared, Config::Tile::kThreads>;
  const Patches<T> patches_;
  Radix row_radix_, column_radix_;
  Digits step_, column_;
  int to_;
  Digits row_[Mine::kRows];
};

/// Filters [K, R, S, C] as the right operand of a data gradient: the reduction runs over the taps
/// of two axes and over K, rows of C are contiguous and whole chunks.
template <class Config, int kExtent>
class FilterLoader {
  using T = typename Config::T;

 public:
  using Shared = SharedTile<Config, Order::result, kExtent>;

  MIXPL_DEVICE FilterLoader(const T* filters, int kernel_h, int kernel_w, int channels, int count,
                            const ConvAxis& down, const ConvAxis& right, int first_row,
                            int first_column)
      : filters_(filters),
        down_(down),
        right_(right),
        radix_(right.taps, count),
        step_(radix_.digits(Config::kStep)),
        pitch_(channels),
        kernel_h_(kernel_h),
        kernel_w_(kernel_w),
        column_(first_column + Mine::column() * kChunk<T>),
        to_(Mine::first()) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) row_[i] = radix_.digits(first_row + Mine::row(i));
  }

  MIXPL_DEVICE void load(char* stage) {
#pragma unroll
    for (int i = 0; i < Mine::kRows; ++i) {
      const Digits& at = row_[i];
      copy_chunk<T, kChunkBytes>(stage + to_ + i * Mine::kSkip, filters_, [&] {
        const int r = down_.filter_first + at.high * down_.filter_every;
        const int s = right_.filter_first + at.middle * right_.filter_every;
        const int from = ((at.low * kernel_h_ + r) * kernel_w_ + s) * pitch_ + column_;
        return Run<T>(filters_ + from, (at.high < down_.taps) & (column_ < pitch_));
      });
      radix_.add(row_[i], step_);
    }
  }

 private:
  using Mine = Share<Shared, Config::Tile::kThreads>;
  const T* filters_;
  const ConvAxis down_, right_;
  Radix radix_;
  Digits step_;
  int pitch_, kernel_h_, kernel_w_, column_, to_;
  Digits row_[Mine::kRows];
};

}  // namespace mixpl::cuda
