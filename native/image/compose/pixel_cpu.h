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
