// Arithmetic of the special function units, for results that are rounded to fewer bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/cuda/keywords.h"

namespace mixpl::cuda {

#if defined(MIXPL_CUDA_EMULATED)
// As wrong as the PTX manual lets the hardware be (ex2.approx, rcp.approx), up or down by a bit of
// the result that looks random: what holds here holds there.
MIXPL_DEVICE float off_by(float exact, float most) {
  uint32_t bits;
  memcpy(&bits, &exact, 4);
  return (bits >> 3) & 1 ? exact + exact * most : exact - exact * most;
}
MIXPL_DEVICE float approximate_exp2(float x) { return off_by(std::exp2(x), 2.4e-7f); }
MIXPL_DEVICE float approximate_reciprocal(float x) { return off_by(1.0f / x, 1.2e-7f); }
MIXPL_DEVICE int32_t nearest_int(float x) { return static_cast<int32_t>(std::nearbyint(x)); }
#else
/// 2^x within 2^-22 relative, subnormal results are 0.
MIXPL_DEVICE float approximate_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1 / x within a unit of the last place.
MIXPL_DEVICE float approximate_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// The whole number next to x, the even one of two; |x| below 2^31. One instruction, where rintf
/// and a cast are two.
MIXPL_DEVICE int32_t nearest_int(float x) {
  int32_t y;
  asm("cvt.rni.s32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}
#endif

/// e^x within 4e-7 relative for x in [-87, 0]; below, down to minus infinity, 0.
MIXPL_DEVICE float approximate_exp(float x) {
  x = x < -126.0f ? -126.0f : x;  // what is lost of a product that overflows is no number
  const float t = x * 1.44269504f, rest = fmaf(x, 1.44269504f, -t);  // what t lost
  const float y = approximate_exp2(t);
  return fmaf(y, rest * 0.693147181f, y);
}

}  // namespace mixpl::cuda
