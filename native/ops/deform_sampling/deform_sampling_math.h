// Bilinear samples of one channel's plane and their slopes, once for both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// The four cells around a place: where they lie in the map (-1: outside) and how far it is from the
/// first of them.
struct Corners {
  int64_t at[4];  // top left, top right, bottom left, bottom right
  float down, right;
  bool inside;

  MIXPL_HD float share_down(int k) const { return k / 2 ? down : 1 - down; }
  MIXPL_HD float share_right(int k) const { return k % 2 ? right : 1 - right; }
};

MIXPL_HD Corners corners_of(float y, float x, int64_t height, int64_t width) {
  Corners c{};
  c.inside = y > -1 && x > -1 && y < static_cast<float>(height) && x < static_cast<float>(width);
  if (!c.inside) return c;  // NaN too
  const auto top = static_cast<int64_t>(std::floor(y)), left = static_cast<int64_t>(std::floor(x));
  c.down = y - static_cast<float>(top);
  c.right = x - static_cast<float>(left);
  for (int k = 0; k < 4; ++k) {
    const int64_t row = top + k / 2, column = left + k % 2;
    const bool valid = row >= 0 && row < height && column >= 0 && column < width;
    c.at[k] = valid ? row * width + column : -1;
  }
  return c;
}

/// The value at the corners' place; neighbouring cells of `plane` are `stride` apart.
MIXPL_HD float sample_of(const Corners& c, const float* plane, int64_t stride) {
  float sum = 0;
  if (c.inside)
    for (int k = 0; k < 4; ++k)
      if (c.at[k] >= 0) sum += c.share_down(k) * c.share_right(k) * plane[c.at[k] * stride];
  return sum;
}

struct SampleSlopes {
  float dy, dx;
};
/// How the sample changes as its place moves.
MIXPL_HD SampleSlopes sample_slopes(const Corners& c, const float* plane, int64_t stride) {
  SampleSlopes slopes{0, 0};
  if (c.inside)
    for (int k = 0; k < 4; ++k) {
      if (c.at[k] < 0) continue;
      const float value = plane[c.at[k] * stride], down = c.share_down(k), right = c.share_right(k);
      slopes.dy += (k / 2 ? right : -right) * value;
      slopes.dx += (k % 2 ? down : -down) * value;
    }
  return slopes;
}

}  // namespace mixpl
