// What the kernels of attention share: sizes of tiles, what a block works on, copies between memory
// and tiles, and what makes scores of products.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "core/cuda/packs.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_sums_cuda.h"

namespace mixpl::cuda::attention {

constexpr float kLog2E = 1.44269504f;

/// Tiles of heads with at most kD_ columns of q and k, kDv_ of v. A block's left tiles have kRows
/// rows and stay; right tiles have kColumns rows, kMost at most, and come one after the other.
template <typename T_, int kD_, int kDv_, int kMost = 64>
struct Plan {
  using T = T_;
  static constexpr int kD = kD_, kDv = kDv_;
  static_assert(kDv <= kD && kD % 16 == 0, "outputs leave through the tiles of q, k and v");
  static constexpr bool kTensor = sizeof(T) == 2, kWide = kD > 64;
  // What 227 KiB of shared memory give several blocks, 99 KiB (sm_86, sm_89, sm_120) one at least.
  static constexpr int kRows = kTensor || !kWide ? 64 : 32;
  static constexpr int kColumns = kTensor && !kWide ? kMost : 32;
  static constexpr int kStages = kTensor || !kWide ? 2 : 1;
  using Product = Arithmetic<T, kRows>;
  static constexpr int kThreads = Product::kThreads;
  using Scores = typename Product::template Sums<kColumns>;

  static constexpr int kLeft = kRows * kPitch<T, kD>, kLeftValues = kRows * kPitch<T, kDv>;
  static constexpr int kRight = kColumns * kPitch<T, kD>, kRightValues = kColumns * kPitch<T, kDv>;
};

/// Rows of a head of an operand, by its image.
template <typename T>
struct Operand {
  T* data;
  int64_t pitch, rows;
  int width;     // columns of a head
  bool aligned;  // every row of a head is whole chunks of 16 bytes at multiples of 16

  MIXPL_DEVICE T* head(int64_t image, int64_t head) const {
    return data + image * rows * pitch + head * width;
  }
};

template <typename T>
Operand<T> operand_of(const AttentionOperand& o, int64_t width) {
  if (!o.defined()) return {};
  T* data = o.data<std::remove_const_t<T>>();
  constexpr int64_t kChunk = 16 / sizeof(T);
  const bool aligned =
      reinterpret_cast<uintptr_t>(data) % 16 == 0 && o.pitch() % kChunk == 0 && width % kChunk == 0;
  return {data, o.pitch(), o.tensor.size(1), static_cast<int>(width), aligned};
}

/// Copies kRows rows of kWidth columns to a tile, from row `first` on, zeros where there are none:
/// asynchronously where rows are aligned.
template <int kRows, int kWidth, int kThreads, typename T>
MIXPL_DEVICE void load_tile(T* tile, const Operand<const T>& from, const T* head, int64_t first) {
  constexpr int kChunk = 16 / sizeof(T), kChunks = kWidth / kChunk;
  const int64_t rows = from.rows - first;
  head += first * from.pitch;
  if (from.aligned) {
#pragma unroll 4
    for (int i = linear_thread(); i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, column = i % kChunks * kChunk;
      const bool valid = row < rows && column < from.width;
      cp_async16(tile + row * kPitch<T, kWidth> + column,
                 valid ? head + row * from.pitch + column : head, valid ? 16 : 0);
    }
  } else {
    for (int i = linear_thread(); i < kRows * kWidth; i += kThreads) {
      const int row = i / kWidth, column = i % kWidth;
      tile[row * kPitch<T, kWidth> + column] =
          row < rows && column < from.width ? head[row * from.pitch + column] : T(0.0f);
    }
  }
}

/// Writes a block's sums, rounded, by way of a left tile that nobody reads any more.
template <class Product, int kWidth, typename T>
MIXPL_DEVICE void store_rows(typename Product::template Sums<kWidth>& sums, T* tile,
                             const Operand<T>& to, T* head, int64_t first) {
  using Sums = typename Product::template Sums<kWidth>;
  constexpr int kChunk = 16 / sizeof(T), kChunks = kWidth / kChunk,
                kPitch = attention::kPitch<T, kWidth>;
  sync_warp();
#pragma unroll
  for (int i = 0; i < Sums::kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < Sums::kOwnColumns; ++j)
      tile[Sums::row(i) * kPitch + Sums::column(j)] = T(sums.at(i, j));
  sync_warp();
  const int own = warp() * Product::kWarpRows;
  const int64_t rows = to.rows - first - own;
  tile += own * kPitch;
  head += (first + own) * to.pitch;
  if (to.aligned) {
    for (int i = lane(); i < Product::kWarpRows * kChunks; i += 32) {
      const int row = i / kChunks, column = i % kChunks * kChunk;
      if (row < rows && column < to.width)
        store_vec(head + row * to.pitch + column,
                  load_vec<T, kChunk>(tile + row * kPitch + column));
    }
  } else {
    for (int i = lane(); i < Product::kWarpRows * kWidth; i += 32) {
      const int row = i / kWidth, column = i % kWidth;
      if (row < rows && column < to.width)
        head[row * to.pitch + column] = tile[row * kPitch + column];
    }
  }
}

/// v; what follows from it is worked out after this call, not before a loop around it, where it
/// would take registers all the time.
MIXPL_DEVICE int worked_out_here(int v) {
#if !defined(MIXPL_CUDA_EMULATED)
  asm volatile("" : "+r"(v));
#endif
  return v;
}

/// What makes a score of a product: e^score = 2^(exponents() * score).
struct ScoreTerms {
  const float* bias;
  const uint8_t* mask;
  int64_t biases, masks, heads;
  int queries, keys, mask_pitch;  // mask_pitch 0: one row of the mask for all queries
  float scale;

  explicit ScoreTerms(const AttentionCall& c)
      : bias(c.bias.defined() ? c.bias.data<float>() : nullptr),
        mask(c.mask.defined() ? c.mask.data<uint8_t>() : nullptr),
        biases(bias ? c.bias.size(0) : 1),
        masks(mask ? c.mask.size(0) : 1),
        heads(c.heads),
        queries(static_cast<int>(index_of(c.queries))),
        keys(static_cast<int>(index_of(c.keys))),
        mask_pitch(mask && c.mask.size(1) > 1 ? keys : 0),
        scale(c.scale) {
    if (bias || mask) index_of(c.queries * c.keys);
  }

  /// The same, of one head.
  MIXPL_DEVICE ScoreTerms at(int64_t image, int64_t head) const {
    ScoreTerms own = *this;
    if (bias) own.bias += (image % biases * heads + head) * (queries * keys);
    if (mask) own.mask += image % masks * (mask_pitch ? int64_t{mask_pitch} * queries : keys);
    return own;
  }
  MIXPL_DEVICE float exponents() const { return bias ? kLog2E : scale * kLog2E; }
  /// Products of a tile become scores, minus infinity where a key is not seen, or beyond the last.
  /// What is beyond the last query is any number.
  /// @param kKeysInRows rows are keys and columns queries
  template <bool kKeysInRows, class Sums>
  MIXPL_DEVICE void apply(Sums& sums, int first_row, int first_column) const {
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    if (bias)
      each<kKeysInRows>(sums, first_row, first_column, [&](float& s, int query, int key) {
        if (query < queries && key < keys)
          s = fmaf(s, scale, load_read_only(bias + query * keys + key));
      });
    if (mask)
      each<kKeysInRows>(sums, first_row, first_column, [&](float& s, int query, int key) {
        if (query < queries && key < keys && load_read_only(mask + query * mask_pitch + key))
          s = kNone;
      });
    if (!kKeysInRows && first_column + Sums::kColumns > keys)
      each<kKeysInRows>(sums, first_row, first_column, [&](float& s, int, int key) {
        if (key >= keys) s = kNone;
      });
  }

 private:
  template <bool kKeysInRows, class Sums, class F>
  static MIXPL_DEVICE void each(Sums& sums, int first_row, int first_column, F&& f) {
#pragma unroll
    for (int i = 0; i < Sums::kOwnRows; ++i)
#pragma unroll
      for (int j = 0; j < Sums::kOwnColumns; ++j) {
        const int row = first_row + Sums::row(i), column = first_column + Sums::column(j);
        f(sums.at(i, j), kKeysInRows ? column : row, kKeysInRows ? row : column);
      }
  }
};

/// What a block works on: heads of images one after the other, each in tiles.
struct Place {
  int64_t image, head, tile;
  MIXPL_DEVICE Place(int64_t tiles, int64_t heads) {
    int64_t block = blockIdx.x;
    tile = block % tiles, block /= tiles;
    head = block % heads, image = block / heads;
  }
};

inline int64_t tiles_of(int64_t rows, int size) { return (rows + size - 1) / size; }

/// f(Plan) with the narrowest tiles that hold a head. @throws RangeError
template <typename T, typename F>
void with_plan(const AttentionCall& c, F&& f) {
  const int64_t widest = std::max(c.depth, c.value_depth);
  if (widest > 128)
    throw RangeError(str("attention: on a GPU a head must have at most 128 columns, got ", widest));
  if (widest <= 32)
    f(Plan<T, 32, 32>());
  else if (widest <= 64 && c.value_depth <= 32)
    f(Plan<T, 64, 32>());
  else if (widest <= 64)
    f(Plan<T, 64, 64>());
  else
    f(Plan<T, 128, 128>());
}

}  // namespace mixpl::cuda::attention
