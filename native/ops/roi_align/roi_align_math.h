// Where the samples of a region lie; once for both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"
#include "detect/box_math.h"
#include "ops/roi_align/roi_align.h"

namespace mixpl {

constexpr int kMostRoiLevels = 16;     // they travel as arguments of a kernel
constexpr float kFarthestEdge = 1e7f;  // of a box, in pixels: keeps positions within an int

/// One axis of a region on its map: bins of `bin` pixels from `start` on, each with `samples`.
struct RoiAxis {
  float start, bin;
  int samples;
};

/// @param low, high edges of the box; scale of the level; size of its map
MIXPL_HD RoiAxis roi_axis(float low, float high, float scale, int64_t size,
                          const RoiAlignOptions& o) {
  const float offset = o.aligned ? 0.5f : 0.0f;
  RoiAxis axis;
  axis.start = low * scale - offset;
  float length = high * scale - offset - axis.start;
  if (!o.aligned) length = greater(length, 1.0f);
  axis.bin = length / static_cast<float>(o.size);
  axis.samples = o.sampling_ratio;
  // A box far larger than the map needs no more samples than the map has pixels.
  if (o.sampling_ratio == 0)
    axis.samples = static_cast<int>(
        greater(lesser(std::ceil(axis.bin), 4.0f * static_cast<float>(size)), 0.0f));
  return axis;
}

/// A sample between the pixels `low` and low + 1, `part` of the way; at the edge part is 0.
struct RoiSample {
  int low;
  float part;
  bool inside;  // no more than a pixel off the map
};
MIXPL_HD RoiSample roi_sample(const RoiAxis& a, int bin, int sample, int64_t size) {
  const float v = a.start + static_cast<float>(bin) * a.bin +
                  (static_cast<float>(sample) + 0.5f) * a.bin / static_cast<float>(a.samples);
  if (!(v >= -1.0f && v <= static_cast<float>(size))) return {0, 0, false};
  const float held = greater(v, 0.0f);
  const int low = static_cast<int>(held);
  if (low >= size - 1) return {static_cast<int>(size) - 1, 0, true};
  return {low, held - static_cast<float>(low), true};
}

}  // namespace mixpl
