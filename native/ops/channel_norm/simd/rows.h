// The loops of channel_norm_rows.h over registers of floats; see core/registers.h for who compiles
// them. Every column's sum is taken row after row, so no width of a register changes its bits.
#pragma once

#include "core/registers.h"
#include "ops/channel_norm/channel_norm_rows.h"

namespace mixpl::cpu::channel_norm {
inline namespace MIXPL_SIMD_NAME {

using namespace registers::MIXPL_SIMD_NAME;

// A tile is one or a few rows of as many registers as have their constants and sums in registers
// beside them: these are loaded and stored once a tile. Of what comes out of memory it is one row,
// so that all is read in order; the prefetcher loses several at once.
constexpr int kVectors = kLanes == 16 ? 4 : 2;
constexpr int64_t kColumns = kVectors * kLanes, kCachedRows = 4;

// Bytes that are on their way from memory, of all that a loop reads together.
constexpr int kAhead = 8192;

#if MIXPL_VECTOR_LANES == 16

/// g where v > 0, else 0.
MIXPL_SIMD inline Vector where_positive(Vector v, Vector g) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, splat(0), _CMP_GT_OQ), g);
}
MIXPL_SIMD inline void stream(float* p, Vector v) { _mm512_stream_ps(p, v); }
MIXPL_SIMD inline void stream(bfloat16* p, Vector v) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}
inline void end_streams() { _mm_sfence(); }

#elif defined(MIXPL_SIMD_PORTABLE)

inline Vector where_positive(Vector v, Vector g) {
  return each([&](int i) { return v.at[i] > 0 ? g.at[i] : 0.0f; });
}
template <typename T>
inline void stream(T* p, Vector v) {
  store(p, kLanes, v);
}
inline void end_streams() {}

#else

inline Vector where_positive(Vector v, Vector g) {
  return _mm256_and_ps(_mm256_cmp_ps(v, splat(0), _CMP_GT_OQ), g);
}
inline void stream(float* p, Vector v) { _mm256_stream_ps(p, v); }
inline void stream(bfloat16* p, Vector v) {
  const __m256i wide = bf16_bits(v);
  _mm_stream_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
}
inline void end_streams() { _mm_sfence(); }

#endif

/// What loops read once, and what one of kStreams needs next.
template <int kStreams, typename T>
MIXPL_SIMD inline Vector load_ahead(const T* p, Lanes lanes) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + kAhead / kStreams);
  return load(p, lanes);
}

/// Writes v to where a whole register goes, or its lanes to the end of a row.
template <typename T>
MIXPL_SIMD inline void put(T* p, Lanes lanes, Vector v, bool streams) {
  if (streams)
    stream(p, v);
  else
    store(p, lanes, v);
}

/// Rounded as channel_norm_math.h has it: a ReLU hangs on it.
MIXPL_SIMD inline Vector normalized(Vector x, Vector mean, Vector scale, Vector shift) {
  return add(mul(sub(x, mean), scale), shift);
}

/// V registers of constants, the first `lanes` of each.
template <int V>
MIXPL_SIMD inline void load_all(const float* p, Lanes lanes, Vector (&v)[V]) {
#pragma GCC unroll 4
  for (int i = 0; i < V; ++i) v[i] = load(p + i * kLanes, lanes);
}
template <int V>
MIXPL_SIMD inline void store_all(float* p, Lanes lanes, const Vector (&v)[V]) {
#pragma GCC unroll 4
  for (int i = 0; i < V; ++i) store(p + i * kLanes, lanes, v[i]);
}

/// loop.run<V>(row, rows, column, lanes) over tiles that cover the block.
template <typename Loop>
MIXPL_SIMD inline void for_each_tile(const Loop& loop, RowBlock block) {
  const int64_t at_once = block.width <= kColumns ? block.rows : block.cached ? kCachedRows : 1;
  for (int64_t row = 0; row < block.rows; row += at_once) {
    const int64_t count = std::min(at_once, block.rows - row);
    int64_t column = 0;
    for (; column + kColumns <= block.width; column += kColumns)
      loop.template run<kVectors>(row, count, column, lanes_of(kLanes));
    for (; column < block.width; column += kLanes)
      loop.template run<1>(row, count, column, lanes_of(block.width - column));
  }
}

template <typename T>
struct Moments {
  const T* x;
  const float* shift;
  int64_t width;
  float *sum, *square;

  template <int V>
  MIXPL_SIMD void run(int64_t row, int64_t rows, int64_t column, Lanes lanes) const {
    Vector k[V], s[V], q[V];
    load_all(shift + column, lanes, k);
    load_all(sum + column, lanes, s);
    load_all(square + column, lanes, q);
    const T* at = x + row * width + column;
    for (int64_t r = 0; r < rows; ++r, at += width)
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) {
        const Vector d = sub(load_ahead<1>(at + i * kLanes, lanes), k[i]);
        s[i] = add(s[i], d);
        q[i] = fmadd(d, d, q[i]);
      }
    store_all(sum + column, lanes, s);
    store_all(square + column, lanes, q);
  }
};

template <bool kResidual, bool kRelu, typename T>
struct Forward {
  static constexpr int kStreams = kResidual ? 2 : 1;
  ForwardRows<T> f;
  int64_t width;

  template <int V>
  MIXPL_SIMD void run(int64_t row, int64_t rows, int64_t column, Lanes lanes) const {
    Vector mean[V], scale[V], shift[V];
    load_all(f.mean + column, lanes, mean);
    load_all(f.scale + column, lanes, scale);
    load_all(f.shift + column, lanes, shift);
    int64_t at = row * width + column;
    for (int64_t r = 0; r < rows; ++r, at += width)
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) {
        const int64_t j = at + i * kLanes;
        Vector v = normalized(load_ahead<kStreams>(f.x + j, lanes), mean[i], scale[i], shift[i]);
        if constexpr (kResidual) v = add(v, load_ahead<kStreams>(f.residual + j, lanes));
        if constexpr (kRelu) v = max(splat(0), v);  // NaN stays
        put(f.y + j, lanes, v, f.streams);
      }
  }
};

template <NormMask kMask>
constexpr int kStreams = kMask == NormMask::output ? 3 : 2;

/// The gradient behind the ReLU.
template <NormMask kMask, typename T>
MIXPL_SIMD inline Vector masked(const BackwardRows<T>& b, int64_t at, Lanes lanes, Vector x,
                                Vector mean, Vector scale, Vector shift) {
  const Vector g = load_ahead<kStreams<kMask>>(b.dout + at, lanes);
  if constexpr (kMask == NormMask::output)
    return where_positive(load_ahead<kStreams<kMask>>(b.y + at, lanes), g);
  if constexpr (kMask == NormMask::recompute)
    return where_positive(normalized(x, mean, scale, shift), g);
  return g;
}

template <NormMask kMask, bool kStores, typename T>
struct Sums {
  BackwardRows<T> b;
  int64_t width;
  float *sum, *product;

  template <int V>
  MIXPL_SIMD void run(int64_t row, int64_t rows, int64_t column, Lanes lanes) const {
    Vector mean[V], scale[V], shift[V], s[V], q[V];
    load_all(b.mean + column, lanes, mean);
    load_all(b.scale + column, lanes, scale);
    load_all(b.shift + column, lanes, shift);
    load_all(sum + column, lanes, s);
    load_all(product + column, lanes, q);
    int64_t at = row * width + column;
    for (int64_t r = 0; r < rows; ++r, at += width)
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) {
        const int64_t j = at + i * kLanes;
        const Vector x = load_ahead<kStreams<kMask>>(b.x + j, lanes);
        const Vector g = masked<kMask>(b, j, lanes, x, mean[i], scale[i], shift[i]);
        s[i] = add(s[i], g);
        q[i] = fmadd(g, sub(x, mean[i]), q[i]);
        if constexpr (kStores) store(b.dresidual + j, lanes, g);
      }
    store_all(sum + column, lanes, s);
    store_all(product + column, lanes, q);
  }
};

template <NormMask kMask, typename T>
struct Gradient {
  BackwardRows<T> b;
  int64_t width;

  template <int V>
  MIXPL_SIMD void run(int64_t row, int64_t rows, int64_t column, Lanes lanes) const {
    Vector mean[V], scale[V], shift[V], slope[V], offset[V];
    load_all(b.mean + column, lanes, mean);
    load_all(b.scale + column, lanes, scale);
    load_all(b.shift + column, lanes, shift);
    load_all(b.slope + column, lanes, slope);
    load_all(b.offset + column, lanes, offset);
    int64_t at = row * width + column;
    for (int64_t r = 0; r < rows; ++r, at += width)
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) {
        const int64_t j = at + i * kLanes;
        const Vector x = load_ahead<kStreams<kMask>>(b.x + j, lanes);
        const Vector g = masked<kMask>(b, j, lanes, x, mean[i], scale[i], shift[i]);
        const Vector dx = fmadd(scale[i], g, fmadd(slope[i], sub(x, mean[i]), offset[i]));
        put(b.dx + j, lanes, dx, b.streams);
      }
  }
};

template <typename T>
MIXPL_SIMD void moments(const T* x, const float* shift, RowBlock block, float* sum, float* square) {
  for_each_tile(Moments<T>{x, shift, block.width, sum, square}, block);
}

template <typename T>
MIXPL_SIMD void forward(const ForwardRows<T>& f, RowBlock block) {
  if (f.residual && f.relu)
    for_each_tile(Forward<true, true, T>{f, block.width}, block);
  else if (f.residual)
    for_each_tile(Forward<true, false, T>{f, block.width}, block);
  else if (f.relu)
    for_each_tile(Forward<false, true, T>{f, block.width}, block);
  else
    for_each_tile(Forward<false, false, T>{f, block.width}, block);
  if (f.streams) end_streams();
}

template <typename T>
MIXPL_SIMD void sums(const BackwardRows<T>& b, RowBlock block, float* sum, float* product) {
  if (b.mask == NormMask::none)
    for_each_tile(Sums<NormMask::none, false, T>{b, block.width, sum, product}, block);
  else if (b.mask == NormMask::recompute)
    for_each_tile(Sums<NormMask::recompute, false, T>{b, block.width, sum, product}, block);
  else if (b.dresidual)
    for_each_tile(Sums<NormMask::output, true, T>{b, block.width, sum, product}, block);
  else
    for_each_tile(Sums<NormMask::output, false, T>{b, block.width, sum, product}, block);
}

template <typename T>
MIXPL_SIMD void gradient(const BackwardRows<T>& b, RowBlock block) {
  if (b.mask == NormMask::none)
    for_each_tile(Gradient<NormMask::none, T>{b, block.width}, block);
  else if (b.mask == NormMask::recompute)
    for_each_tile(Gradient<NormMask::recompute, T>{b, block.width}, block);
  else
    for_each_tile(Gradient<NormMask::output, T>{b, block.width}, block);
  if (b.streams) end_streams();
}

template <typename T>
constexpr RowLoops<T> kLoops{moments<T>, forward<T>, sums<T>, gradient<T>};

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::channel_norm
