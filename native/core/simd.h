// Eight floats at a time in plain compiler vectors, with bf16 loads and stores; loops over channels
// use these where the compiler would keep accumulators in memory.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "core/dtype.h"

// A second copy of a function for AVX-512, picked when the library is loaded. Arithmetic is the
// same in both: contraction is off and sums are in a fixed order. Sanitizers cannot run before
// main.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MIXPL_CPU_CLONES __attribute__((target_clones("avx512f", "default")))
#else
#define MIXPL_CPU_CLONES
#endif

namespace mixpl::simd {

constexpr int kWidth = 8;
typedef float f32x8 __attribute__((vector_size(32)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef uint8_t u8x8 __attribute__((vector_size(8)));

inline f32x8 load(const float* p) {
  f32x8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, f32x8 v) { std::memcpy(p, &v, sizeof v); }
#if defined(__AVX2__)
// As below, which GCC 12 makes three times as many instructions of.
inline f32x8 load(const bfloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return (f32x8)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}
inline void store(bfloat16* p, f32x8 v) {
  const __m256i u = (__m256i)v;
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 quiet = _mm256_or_ps(v, (__m256)_mm256_set1_epi32(0x400000));
  const __m256 is_nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  const __m256i bits =
      _mm256_srli_epi32((__m256i)_mm256_blendv_ps((__m256)rounded, quiet, is_nan), 16);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}
/// a where the mask's highest bit is set, else b.
inline f32x8 select(i32x8 mask, f32x8 a, f32x8 b) {
  return (f32x8)_mm256_blendv_ps(b, a, (__m256)mask);
}
inline i32x8 load_i32(const uint8_t* p) {
  return (i32x8)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline void store(uint8_t* p, i32x8 v) {
  const __m256i low = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xff));
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
#else
inline f32x8 load(const bfloat16* p) {
  u16x8 bits;
  std::memcpy(&bits, p, sizeof bits);
  return (f32x8)(__builtin_convertvector(bits, u32x8) << 16);
}
/// Rounds to nearest even as bfloat16(float) does; NaN stays NaN.
inline void store(bfloat16* p, f32x8 v) {
  const u32x8 u = (u32x8)v;
  const u32x8 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const u32x8 is_nan = (u32x8)((u & 0x7fffffffu) > 0x7f800000u);
  const u32x8 bits = (is_nan & ((u >> 16) | 0x40u)) | (~is_nan & rounded);
  const u16x8 narrow = __builtin_convertvector(bits, u16x8);
  std::memcpy(p, &narrow, sizeof narrow);
}
inline f32x8 select(i32x8 mask, f32x8 a, f32x8 b) { return mask < 0 ? a : b; }
inline i32x8 load_i32(const uint8_t* p) {
  u8x8 v;
  std::memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, i32x8);
}
/// The low byte of each.
inline void store(uint8_t* p, i32x8 v) {
  const u8x8 narrow = __builtin_convertvector(v, u8x8);
  std::memcpy(p, &narrow, sizeof narrow);
}
#endif
inline f32x8 splat(float x) { return f32x8{x, x, x, x, x, x, x, x}; }
/// a where mask is all ones, else zero.
inline f32x8 keep(i32x8 mask, f32x8 a) { return (f32x8)((u32x8)mask & (u32x8)a); }

/// out[i] = scale * in[i] for i in [0, n); out may be in.
template <typename From, typename To>
inline void scale(const From* in, float scale, To* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store(out + i, load(in + i) * scale);
  for (; i < n; ++i) out[i] = To(float(in[i]) * scale);
}

}  // namespace mixpl::simd
