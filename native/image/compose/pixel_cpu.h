// Three channels in a four-lane vector: the CPU's unit of resampling.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

namespace mixpl::cpu {

using Pixel = float __attribute__((vector_size(16)));
using Lanes = int32_t __attribute__((vector_size(16)));

/// Reads FOUR bytes: the pixel and one beyond, which lands in the unused lane.
inline Pixel load_pixel(const uint8_t* p) {
#if defined(__SSE4_1__)
  int32_t bytes;
  std::memcpy(&bytes, p, 4);
  return reinterpret_cast<Pixel>(_mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes))));
#else
  return Pixel{float(p[0]), float(p[1]), float(p[2]), float(p[3])};
#endif
}

/// Bilinear value between two pixels of `upper` and the two of `lower`; reads EIGHT bytes of each.
inline Pixel blend_pixels(const uint8_t* upper, const uint8_t* lower, float a, float b) {
#if defined(__AVX2__)
  // Both rows at once: left pixels of upper and lower, right pixels of upper and lower.
  const __m128i bytes =
      _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(upper)),
                         _mm_loadl_epi64(reinterpret_cast<const __m128i*>(lower)));
  const __m128i pairs = _mm_shuffle_epi8(
      bytes, _mm_setr_epi8(0, 1, 2, -1, 8, 9, 10, -1, 3, 4, 5, -1, 11, 12, 13, -1));
  const __m256 left = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pairs));
  const __m256 right = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(pairs, 8)));
  const __m256 rows = left + a * (right - left);
  const Pixel high = reinterpret_cast<Pixel>(_mm256_castps256_ps128(rows));
  const Pixel low = reinterpret_cast<Pixel>(_mm256_extractf128_ps(rows, 1));
#else
  const Pixel u = load_pixel(upper), l = load_pixel(lower);
  const Pixel high = u + a * (load_pixel(upper + 3) - u), low = l + a * (load_pixel(lower + 3) - l);
#endif
  return high + b * (low - high);
}

/// Writes FOUR floats; pixels of a row are stored in ascending order so that the next one
/// overwrites.
inline void store_pixel(float* p, Pixel v) { std::memcpy(p, &v, sizeof v); }
inline Pixel read_pixel(const float* p) {
  Pixel v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <bool kSwap>
inline Pixel ordered(Pixel v) {
  if constexpr (kSwap) return __builtin_shuffle(v, Lanes{2, 1, 0, 3});
  return v;
}

}  // namespace mixpl::cpu
