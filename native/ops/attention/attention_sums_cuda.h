// Two kinds of arithmetic with one form: a block's sums of kRows x kColumns lie in registers, and
// are made of tiles in shared memory or of other sums. bf16 goes to the tensor cores, f32 is exact.
//
// A thread owns kOwnRows rows of a block's sums, of each kOwnColumns columns; a row's kSharers
// owners are neighbouring lanes. A warp owns whole rows, and reads no others of a left tile.
#pragma once

#include "core/cuda/approximations.h"
#include "core/cuda/kernel.h"
#include "core/dtype.h"

namespace mixpl::cuda::attention {

/// Elements between rows of a tile of kWidth columns: 16 bytes more than these take, so that eight
/// rows' chunks fall on different banks.
template <typename T, int kWidth>
constexpr int kPitch = kWidth + 16 / static_cast<int>(sizeof(T));

template <typename T, int kRows>
struct Arithmetic;

/// mma.sync: a warp multiplies 16 rows. Fragment layouts: PTX ISA, "Matrix fragments for
/// mma.m16n8k16"; two fragments of sums, rounded, are one of a left operand.
template <int kRows_>
struct Arithmetic<bfloat16, kRows_> {
  static constexpr int kRows = kRows_, kThreads = kRows * 2, kWarpRows = 16;
  static constexpr int kScratch = 0;  // floats

  template <int kColumns_>
  struct Sums {
    static constexpr int kColumns = kColumns_;
    static constexpr int kOwnRows = 2, kOwnColumns = kColumns / 4, kSharers = 4;
    float d[kColumns / 8][4] = {};

    MIXPL_DEVICE float& at(int i, int j) { return d[j / 2][2 * i + j % 2]; }
    static MIXPL_DEVICE int row(int i) { return warp() * 16 + lane() / 4 + 8 * i; }
    static MIXPL_DEVICE int column(int j) { return j / 2 * 8 + lane() % 4 * 2 + j % 2; }
  };

  static MIXPL_DEVICE float exp2(float x) { return approximate_exp2(x); }
  /// 2^(factor (x - origin)); `at_origin` is their product.
  static MIXPL_DEVICE float power(float x, float, float factor, float at_origin) {
    return exp2(fmaf(x, factor, -at_origin));
  }

  /// sums += left right^T; left [kRows][kDepth], right [kColumns][kDepth].
  template <int kDepth, int kColumns>
  static MIXPL_DEVICE void add_scores(Sums<kColumns>& sums, const bfloat16* left,
                                      const bfloat16* right) {
    constexpr int kPitch = attention::kPitch<bfloat16, kDepth>;
    // For ldmatrix, lane 8 i + r says where row r of block i is: of the left operand two along the
    // rows by two along the depth, of the right one the other way round.
    left += (warp() * 16 + lane() % 16) * kPitch + lane() / 16 * 8;
    right += (lane() / 16 * 8 + lane() % 8) * kPitch + lane() / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[4];
      ldmatrix_x4(a, left + k);
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j) {
        uint32_t b[4];
        ldmatrix_x4(b, right + j * 16 * kPitch + k);
        multiply_pair(sums.d + 2 * j, a, b);
      }
    }
  }

  /// sums += weights right; right [kDepth][kColumns].
  template <int kColumns, int kDepth>
  static MIXPL_DEVICE void add_weighted(Sums<kColumns>& sums, const Sums<kDepth>& weights,
                                        const bfloat16* right, float*) {
    constexpr int kPitch = attention::kPitch<bfloat16, kColumns>;
    right += lane() % 16 * kPitch + lane() / 16 * 8;
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      const float(&low)[4] = weights.d[2 * k], (&high)[4] = weights.d[2 * k + 1];
      const uint32_t a[4] = {pair(low[0], low[1]), pair(low[2], low[3]), pair(high[0], high[1]),
                             pair(high[2], high[3])};
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, right + k * 16 * kPitch + j * 16);
        multiply_pair(sums.d + 2 * j, a, b);
      }
    }
  }

 private:
  static MIXPL_DEVICE uint32_t pair(float low, float high) {
    return bfloat16(low).bits | uint32_t{bfloat16(high).bits} << 16;
  }
  static MIXPL_DEVICE void multiply_pair(float (*sums)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[4]) {
    const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_bf16_m16n8k16(sums[0], a, first);
    mma_bf16_m16n8k16(sums[1], a, second);
  }
};

/// Sixteen lanes share some neighbouring rows; weights pass through shared memory, a half warp's
/// own part of it.
template <int kRows_>
struct Arithmetic<float, kRows_> {
  static constexpr int kRows = kRows_, kThreads = 256, kOwn = kRows / 16, kWarpRows = 2 * kOwn;
  static constexpr int kColumnsOfScratch = 32, kScratchPitch = kColumnsOfScratch + 4;
  static constexpr int kScratch = kRows * kScratchPitch;

  template <int kColumns_>
  struct Sums {
    static constexpr int kColumns = kColumns_;
    static constexpr int kOwnRows = kOwn, kOwnColumns = kColumns / 16, kSharers = 16;
    float s[kOwnRows][kOwnColumns] = {};

    MIXPL_DEVICE float& at(int i, int j) { return s[i][j]; }
    static MIXPL_DEVICE int row(int i) { return linear_thread() / 16 * kOwnRows + i; }
    static MIXPL_DEVICE int column(int j) { return lane() % 16 + 16 * j; }
  };

  static MIXPL_DEVICE float exp2(float x) { return ::exp2f(x); }
  static MIXPL_DEVICE float power(float x, float origin, float factor, float) {
    return exp2((x - origin) * factor);  // exact where products are large, not their difference
  }

  template <int kDepth, int kColumns>
  static MIXPL_DEVICE void add_scores(Sums<kColumns>& sums, const float* left, const float* right) {
    constexpr int kPitch = attention::kPitch<float, kDepth>;
    left += Sums<kColumns>::row(0) * kPitch;
    right += Sums<kColumns>::column(0) * kPitch;
#pragma unroll 1  // unrolled, loads would be moved to the front, and spilt
    for (int k = 0; k < kDepth; k += 4) {
      Vec<float, 4> a[kOwn], b[kColumns / 16];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) a[i] = load_vec<float, 4>(left + i * kPitch + k);
#pragma unroll
      for (int j = 0; j < kColumns / 16; ++j)
        b[j] = load_vec<float, 4>(right + 16 * j * kPitch + k);
#pragma unroll
      for (int e = 0; e < 4; ++e)
#pragma unroll
        for (int i = 0; i < kOwn; ++i)
#pragma unroll
          for (int j = 0; j < kColumns / 16; ++j)
            sums.s[i][j] = fmaf(a[i][e], b[j][e], sums.s[i][j]);
    }
  }

  template <int kColumns, int kDepth>
  static MIXPL_DEVICE void add_weighted(Sums<kColumns>& sums, const Sums<kDepth>& weights,
                                        const float* right, float* scratch) {
    static_assert(kDepth == kColumnsOfScratch);
    constexpr int kPitch = attention::kPitch<float, kColumns>;
    float* own = scratch + Sums<kDepth>::row(0) * kScratchPitch;
    sync_warp();  // what was there may still be read
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kDepth / 16; ++j)
        own[i * kScratchPitch + Sums<kDepth>::column(j)] = weights.s[i][j];
    sync_warp();
    right += Sums<kColumns>::column(0);
#pragma unroll 1  // unrolled, loads would be moved to the front, and spilt
    for (int k = 0; k < kDepth; k += 4) {
      Vec<float, 4> a[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) a[i] = load_vec<float, 4>(own + i * kScratchPitch + k);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float b[kColumns / 16];
#pragma unroll
        for (int j = 0; j < kColumns / 16; ++j) b[j] = right[(k + e) * kPitch + 16 * j];
#pragma unroll
        for (int i = 0; i < kOwn; ++i)
#pragma unroll
          for (int j = 0; j < kColumns / 16; ++j) sums.s[i][j] = fmaf(a[i][e], b[j], sums.s[i][j]);
      }
    }
  }
};

/// Over the lanes that share a row.
template <int kSharers, typename Op>
MIXPL_DEVICE float row_reduce(float v, Op op) {
#pragma unroll
  for (int mask = kSharers / 2; mask > 0; mask >>= 1) v = op(v, shfl_xor(v, mask));
  return v;
}

}  // namespace mixpl::cuda::attention
