// A register of floats, and what loops do with it. Who includes this is compiled once for each
// instruction set, by files (*_avx512_cpu.cpp, *_avx2_cpu.cpp, *_portable_cpu.cpp) that say how
// wide it is: MIXPL_VECTOR_LANES; MIXPL_SIMD, an attribute that every function with registers in it
// needs (lambdas cannot have it); and MIXPL_SIMD_NAME, the namespace that all names lie in.
#pragma once

#if !defined(MIXPL_VECTOR_LANES) || !defined(MIXPL_SIMD)
#error "to be included by files that are compiled for one instruction set"
#endif

#if defined(MIXPL_SIMD_PORTABLE)
#include "core/registers_portable.h"
#else

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/avx512.h"
#include "core/dtype.h"

namespace mixpl::cpu::registers {
inline namespace MIXPL_SIMD_NAME {

constexpr int64_t kLanes = MIXPL_VECTOR_LANES;

#if MIXPL_VECTOR_LANES == 16

using Vector = __m512;
using Lanes = __mmask16;
/// The first `count` lanes.
inline Lanes lanes_of(int64_t count) {
  return static_cast<Lanes>((1u << std::clamp<int64_t>(count, 0, kLanes)) - 1);
}
MIXPL_SIMD inline Vector splat(float x) { return _mm512_set1_ps(x); }
MIXPL_SIMD inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
MIXPL_SIMD inline Vector load(const float* p, Lanes lanes) {
  return _mm512_maskz_loadu_ps(lanes, p);
}
MIXPL_SIMD inline Vector load(const bfloat16* p, Lanes lanes) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
MIXPL_SIMD inline void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
MIXPL_SIMD inline void store(float* p, Lanes lanes, Vector v) {
  _mm512_mask_storeu_ps(p, lanes, v);
}
/// The instruction takes what is below 2^-126 for 0, other processors' code rounds it.
MIXPL_SIMD inline void store(bfloat16* p, Lanes lanes, Vector v) {
  _mm256_mask_storeu_epi16(p, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}
MIXPL_SIMD inline Vector rounded_to_bf16(Vector v) {
  const __m512i bits = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
MIXPL_SIMD inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
MIXPL_SIMD inline Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
MIXPL_SIMD inline Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
/// b where either is no number.
MIXPL_SIMD inline Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
/// a b + c and c - a b, rounded once.
MIXPL_SIMD inline Vector fmadd(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
MIXPL_SIMD inline Vector fnmadd(Vector a, Vector b, Vector c) { return _mm512_fnmadd_ps(a, b, c); }

/// Number j of rows[i] becomes number i of rows[j].
MIXPL_SIMD inline void transpose(Vector (&rows)[kLanes]) {
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_castps_si512(rows[i]);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  // Now a quarter of r[4 i + j] is numbers 4 i … 4 i + 3 of result j, 4 + j, 8 + j or 12 + j.
  for (int j = 0; j < 4; ++j) {
    const __m512i even_low = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
    const __m512i even_high = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
    const __m512i odd_low = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
    const __m512i odd_high = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    t[12 + j] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_castsi512_ps(t[i]);
}

#else

using Vector = __m256;
struct Lanes {
  __m256i mask;
  int count;
};
inline Lanes lanes_of(int64_t count) {
  const int n = static_cast<int>(std::clamp<int64_t>(count, 0, kLanes));
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(n), index), n};
}
inline Vector splat(float x) { return _mm256_set1_ps(x); }
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline Vector load(const float* p, Lanes lanes) {
  return lanes.count == kLanes ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes.mask);
}
inline Vector widened(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline Vector load(const bfloat16* p, Lanes lanes) {
  __m128i bits = _mm_setzero_si128();
  if (lanes.count == kLanes)
    bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  else
    __builtin_memcpy(&bits, p, lanes.count * sizeof(bfloat16));
  return widened(bits);
}
inline void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
inline void store(float* p, Lanes lanes, Vector v) {
  if (lanes.count == kLanes)
    _mm256_storeu_ps(p, v);
  else
    _mm256_maskstore_ps(p, lanes.mask, v);
}
/// Rounded as bfloat16(float) does, in the low halves.
inline __m256i bf16_bits(Vector v) {
  const __m256i u = _mm256_castps_si256(v), one = _mm256_set1_epi32(1);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), one);
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd)), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
inline void store(bfloat16* p, Lanes lanes, Vector v) {
  const __m256i wide = bf16_bits(v);
  const __m128i bits =
      _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  if (lanes.count == kLanes)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bits);
  else
    __builtin_memcpy(static_cast<void*>(p), &bits, lanes.count * sizeof(bfloat16));
}
inline Vector rounded_to_bf16(Vector v) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(v), 16));
}
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline Vector fmadd(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector fnmadd(Vector a, Vector b, Vector c) { return _mm256_fnmadd_ps(a, b, c); }

inline void transpose(Vector (&rows)[kLanes]) {
  Vector t[8], s[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      s[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      s[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(s[j], s[4 + j], 0x20);
    rows[4 + j] = _mm256_permute2f128_ps(s[j], s[4 + j], 0x31);
  }
}

#endif

// Of activations, which are f32 or bf16.
template <bool kBf16>
MIXPL_SIMD inline Vector load(const char* p, Lanes lanes) {
  using T = std::conditional_t<kBf16, bfloat16, float>;
  return load(reinterpret_cast<const T*>(p), lanes);
}
template <bool kBf16>
MIXPL_SIMD inline void store(char* p, Lanes lanes, Vector v) {
  using T = std::conditional_t<kBf16, bfloat16, float>;
  store(reinterpret_cast<T*>(p), lanes, v);
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::registers

#endif
