// The arithmetic of the colour operations, per value: once for every device. Values are 8 bits
// before and after each operation, so results do not differ by a bit between devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// uint8 from float: rounded to nearest even and saturated (OpenCV's saturate_cast).
MIXPL_HD uint8_t to_byte(float v) {
  const float low = v > 0 ? v : 0;
  return static_cast<uint8_t>(std::rint(low < 255 ? low : 255.0f));
}
/// uint8 from float: clipped and cut off (numpy's clip and astype).
MIXPL_HD uint8_t cut_to_byte(float v) {
  const float low = v > 0 ? v : 0;
  return static_cast<uint8_t>(low < 255 ? low : 255.0f);
}

/// Grey of OpenCV's 8-bit conversion: 0.299 R + 0.587 G + 0.114 B in 15-bit fixed point.
MIXPL_HD uint8_t grey_of(int r, int g, int b) {
  return static_cast<uint8_t>((9798 * r + 19235 * g + 3735 * b + 16384) >> 15);
}

/// How an operation of magnitude m mixes a value with its degenerate form (grey, mean, blur, 0).
/// Computed in double where m is known, so that 1 - 0.7 is the float nearest to 0.3.
struct Blend {
  float value, degenerate;
};
MIXPL_HD Blend blend_of(double magnitude) {
  return {static_cast<float>(magnitude), static_cast<float>(1 - magnitude)};
}
MIXPL_HD float mix(Blend blend, float value, float degenerate) {
  return value * blend.value + degenerate * blend.degenerate;
}

// --- operations on a pixel and its neighbours

MIXPL_HD uint8_t saturated(Blend blend, uint8_t value, uint8_t grey) {
  return to_byte(mix(blend, value, grey));
}

/// 3x3 smoothing [1 1 1; 1 5 1; 1 1 1] / 13 of the sum of nine values and their centre, rounded.
MIXPL_HD int smooth_of(int sum, int centre) { return (2 * (sum + 4 * centre) + 13) / 26; }
MIXPL_HD uint8_t sharpened(Blend blend, int sum, uint8_t centre) {
  return cut_to_byte(mix(blend, centre, static_cast<float>(smooth_of(sum, centre))));
}
/// Neighbours beyond an end (OpenCV's reflect-101): -1 is 1, size is size - 2.
MIXPL_HD int mirror(int k, int size) {
  if (size == 1) return 0;
  return k < 0 ? -k : k >= size ? 2 * size - 2 - k : k;
}

// --- entries of the tables of operations that act on each value by itself

/// [low, high] stretched to [0, 255]; cut off like the reference's integer cast.
MIXPL_HD uint8_t stretched(int v, int low, int high) {
  const double scale = high > low ? 255.0 / (high - low) : 1;
  const double offset = high > low ? -low * scale : 0;
  const double value = v * scale + offset;
  return static_cast<uint8_t>(value < 0 ? 0.0 : value > 255 ? 255.0 : value);
}
/// @param before pixels with a lower value; step: pixels per value of an even histogram, see
///               equalized_step
MIXPL_HD uint8_t equalized(int v, int64_t before, int64_t step) {
  if (step == 0) return static_cast<uint8_t>(v);
  const int64_t value = (before + step / 2) / step;
  return static_cast<uint8_t>(value < 255 ? value : 255);
}
/// PIL's: the highest value's pixels are not spread.
MIXPL_HD int64_t equalized_step(int64_t pixels, int64_t highest) {
  return (pixels - highest) / 255;
}
MIXPL_HD uint8_t posterized(int v, double magnitude) {
  const double bits = std::ceil(magnitude < 0 ? 0.0 : magnitude > 8 ? 8.0 : magnitude);
  const int shift = 8 - static_cast<int>(bits);
  return static_cast<uint8_t>((v >> shift) << shift);
}
MIXPL_HD uint8_t solarized(int v, double magnitude) {
  return static_cast<uint8_t>(v >= magnitude ? 255 - v : v);
}
/// Contrast (`degenerate` is the mean grey) and brightness (it is 0).
MIXPL_HD uint8_t blended(Blend blend, int v, float degenerate) {
  return cut_to_byte(mix(blend, static_cast<float>(v), degenerate));
}
/// Mean of a histogram whose values add up to `sum`, rounded to nearest even.
MIXPL_HD float rounded_mean(double sum, int64_t pixels) {
  return static_cast<float>(std::rint(sum / static_cast<double>(pixels > 1 ? pixels : 1)));
}

}  // namespace mixpl
