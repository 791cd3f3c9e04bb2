// Registers of floats as arrays, for processors that winograd/vector.h does not know: what loops
// the compiler makes of them is its own affair.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/dtype.h"
#include "core/math.h"

namespace mixpl::cpu::attention::portable {

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
inline Vector select(Lanes lanes, Vector v, Vector other) {
  return each([&](int i) { return i < lanes ? v.at[i] : other.at[i]; });
}
inline Vector masked(Vector v, const uint8_t* mask, Lanes lanes) {
  return each([&](int i) {
    return i < lanes && mask[i] ? -std::numeric_limits<float>::infinity() : v.at[i];
  });
}
inline float largest(Vector v) {
  float most = v.at[0];
  for (float x : v.at) most = x > most ? x : most;
  return most;
}
inline float sum(Vector v) {
  float total = 0;
  for (float x : v.at) total += x;
  return total;
}
inline Vector exp(Vector x) {
  return each([&](int i) { return exp_f32(x.at[i]); });
}

}  // namespace mixpl::cpu::attention::portable
