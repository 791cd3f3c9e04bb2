// Element types. bf16 is a storage and compute type; norms, losses and boxes are f32.
#pragma once

#include <bit>
#include <cstdint>
#include <ostream>

#include "core/error.h"
#include "core/launch.h"

namespace mixpl {

enum class DType : uint8_t { f32, bf16, i32, i64, u8 };

/// Upper half of an IEEE float; conversion rounds to nearest even and keeps NaN a NaN.
struct bfloat16 {
  uint16_t bits;
  bfloat16() = default;
  MIXPL_HD bfloat16(float x) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));  // the same but for the bits of a NaN
#else
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
#endif
  }
  MIXPL_HD operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};
static_assert(sizeof(bfloat16) == 2);

inline int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::i64:
      return 8;
    case DType::u8:
      return 1;
  }
  return 0;
}

inline const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
    case DType::u8:
      return "u8";
  }
  return "?";
}

inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }
inline bool is_floating(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; }

template <typename T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<bfloat16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}

/// Calls f(T{}) with T = float or bfloat16.
template <typename F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(float{});
  if (dtype == DType::bf16) return f(bfloat16{});
  throw DTypeError(str("dtype must be f32 or bf16, got ", dtype));
}

}  // namespace mixpl
