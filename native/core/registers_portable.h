// Registers of floats as arrays, for processors that core/registers.h does not know: what loops the
// compiler makes of them is its own affair.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/dtype.h"

namespace mixpl::cpu::registers {
inline namespace MIXPL_SIMD_NAME {

constexpr int64_t kLanes = 8;
struct Vector {
  float at[kLanes];
};
using Lanes = int64_t;
inline Lanes lanes_of(int64_t count) { return std::clamp<int64_t>(count, 0, kLanes); }

template <typename F>
inline Vector each(F&& f) {
  Vector v;
  for (int i = 0; i < kLanes; ++i) v.at[i] = f(i);
  return v;
}
inline Vector splat(float x) {
  return each([&](int) { return x; });
}
inline Vector load(const float* p) {
  return each([&](int i) { return p[i]; });
}
template <typename T>
inline Vector load(const T* p, Lanes lanes) {
  return each([&](int i) { return i < lanes ? float(p[i]) : 0.0f; });
}
inline void store(float* p, Vector v) { std::copy_n(v.at, kLanes, p); }
template <typename T>
inline void store(T* p, Lanes lanes, Vector v) {
  for (int i = 0; i < lanes; ++i) p[i] = T(v.at[i]);
}
inline Vector add(Vector a, Vector b) {
  return each([&](int i) { return a.at[i] + b.at[i]; });
}
inline Vector sub(Vector a, Vector b) {
  return each([&](int i) { return a.at[i] - b.at[i]; });
}
inline Vector mul(Vector a, Vector b) {
  return each([&](int i) { return a.at[i] * b.at[i]; });
}
/// b where either is no number.
inline Vector max(Vector a, Vector b) {
  return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
}
inline Vector fmadd(Vector a, Vector b, Vector c) {
  return each([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
}
inline void transpose(Vector (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) std::swap(rows[i].at[j], rows[j].at[i]);
}

}  // namespace MIXPL_SIMD_NAME
}  // namespace mixpl::cpu::registers
