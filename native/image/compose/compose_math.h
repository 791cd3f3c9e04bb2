// The arithmetic of a composition, per value: once for every device, no loops over pixels, no
// allocation. Coordinates are continuous: pixel k covers [k, k + 1), its centre is k + 0.5.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

struct SourcePoint {
  double u, v;
};

/// (x, y) of the composition through `map` (row-major 3x3) whose last row is 0 0 1. The association
/// of the sums is part of the contract: row loops hoist `m1 y + m2` and still get the same bits.
MIXPL_HD SourcePoint map_affine(const double* m, double x, double y) {
  return {m[0] * x + (m[1] * y + m[2]), m[3] * x + (m[4] * y + m[5])};
}

/// The same through any `map`.
MIXPL_HD SourcePoint map_point(const double* m, double x, double y) {
  const double z = m[6] * x + (m[7] * y + m[8]);
  const SourcePoint p = map_affine(m, x, y);
  return {p.u / z, p.v / z};
}

/// True when the point lies on the source; its border belongs to it. False for NaN.
MIXPL_HD bool on_source(SourcePoint p, int width, int height) {
  return p.u >= 0 && p.v >= 0 && p.u <= width && p.v <= height;
}

/// Triangle filter of half width `reach` around `at`, at the centre of pixel `k`; not normalised.
/// reach = 1 is bilinear interpolation.
MIXPL_HD double triangle_weight(int k, double at, double reach) {
  const double distance = k + 0.5 - at;
  const double value = 1.0 - (distance < 0 ? -distance : distance) / reach;
  return value > 0 ? value : 0;
}

MIXPL_HD float lerp_value(float a, float b, float t) { return a + t * (b - a); }

MIXPL_HD double limited(double v, double low, double high) {
  return v > low ? (v < high ? v : high) : low;
}
MIXPL_HD int clamp_index(int k, int size) { return k < 0 ? 0 : k >= size ? size - 1 : k; }

/// Bilinear value of an RGB source at a point on it, the edge pixels repeated outwards.
MIXPL_HD void sample_bilinear(const uint8_t* data, int width, int height, SourcePoint p,
                              float* rgb) {
  const double fu = p.u - 0.5, fv = p.v - 0.5;
  const double bu = std::floor(fu), bv = std::floor(fv);
  const float a = static_cast<float>(fu - bu), b = static_cast<float>(fv - bv);
  const int x0 = clamp_index(static_cast<int>(bu), width);
  const int x1 = clamp_index(static_cast<int>(bu) + 1, width);
  const int y0 = clamp_index(static_cast<int>(bv), height);
  const int y1 = clamp_index(static_cast<int>(bv) + 1, height);
  const uint8_t* upper = data + int64_t{3} * width * y0;
  const uint8_t* lower = data + int64_t{3} * width * y1;
  for (int c = 0; c < 3; ++c)
    rgb[c] = lerp_value(lerp_value(upper[3 * x0 + c], upper[3 * x1 + c], a),
                        lerp_value(lower[3 * x0 + c], lower[3 * x1 + c], a), b);
}

/// What a channel's value becomes in the network's input: value * scale + shift, summed over
/// layers.
struct ChannelScale {
  float scale, shift;
};
MIXPL_HD ChannelScale channel_scale(float mean, float deviation, float weight) {
  const float scale = weight / deviation;
  return {scale, -mean * scale};
}
MIXPL_HD float scaled(ChannelScale c, float value) { return value * c.scale + c.shift; }

}  // namespace mixpl
