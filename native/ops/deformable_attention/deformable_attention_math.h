// Sizes of a call and where its samples lie, once for both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"
#include "ops/deformable_attention/deformable_attention.h"

namespace mixpl {

constexpr int kMostAttentionLevels = 8;     // they travel as arguments of a kernel
constexpr int kMostAttentionSamples = 384;  // of a head: what 99 KiB of a block hold

struct AttentionLevel {
  int32_t height, width;
  int32_t first;  // its first cell among those of all levels
  // The same of bins: where a footprint begins, with a row above the map and a column left of it.
  int32_t first_bin;

  MIXPL_HD int64_t bins() const { return (int64_t{height} + 1) * (int64_t{width} + 1); }
};

/// Sizes, by the header's letters: N, Q, S, M, D, L, P.
struct AttentionSizes {
  int64_t images, queries, cells;
  int32_t heads, depth, levels, points;
  int32_t coordinates;  // of a reference
  AttentionLevel level[kMostAttentionLevels];

  MIXPL_HD int32_t samples() const { return levels * points; }  // of a head
};

inline AttentionSizes attention_sizes(const Tensor& value, const std::vector<MapSize>& maps,
                                      const Tensor& offsets, const Tensor& references,
                                      int64_t heads) {
  AttentionSizes s{};
  s.images = value.size(0);
  s.queries = offsets.size(1);
  s.cells = value.size(1);
  s.heads = static_cast<int32_t>(heads);
  s.depth = static_cast<int32_t>(value.size(2) / heads);
  s.levels = static_cast<int32_t>(maps.size());
  s.points = static_cast<int32_t>(offsets.size(2) / (2 * heads * s.levels));
  s.coordinates = static_cast<int32_t>(references.size(2));
  int64_t first = 0, first_bin = 0;
  for (int32_t l = 0; l < s.levels; ++l) {
    s.level[l] = {static_cast<int32_t>(maps[l].height), static_cast<int32_t>(maps[l].width),
                  static_cast<int32_t>(first), static_cast<int32_t>(first_bin)};
    first += maps[l].height * maps[l].width;
    first_bin += s.level[l].bins();
  }
  return s;
}

/// Where one query's samples lie on one level: at pixel (x + offset_x * per_x, y + offset_y *
/// per_y).
struct SampleFrame {
  float x, y, per_x, per_y;
  // How a pixel moves with the reference's x and y, and, per unit of offset, with its w and h.
  float by_x, by_y, by_w, by_h;
};
/// @param reference of the query, @param ratio of the image and level
MIXPL_HD SampleFrame sample_frame(const AttentionSizes& s, const AttentionLevel& level,
                                  const float* reference, const float* ratio) {
  SampleFrame f{};
  f.by_x = ratio[0] * static_cast<float>(level.width);
  f.by_y = ratio[1] * static_cast<float>(level.height);
  f.x = reference[0] * f.by_x - 0.5f;
  f.y = reference[1] * f.by_y - 0.5f;
  f.per_x = f.per_y = 1;
  if (s.coordinates == 4) {
    const float share = 0.5f / static_cast<float>(s.points);
    f.by_w = share * f.by_x;
    f.by_h = share * f.by_y;
    f.per_x = reference[2] * f.by_w;
    f.per_y = reference[3] * f.by_h;
  }
  return f;
}

/// The four cells around a place: top left, top right, bottom left, bottom right.
struct Footprint {
  int32_t top, left;  // of the first, from -1 on
  uint32_t corners;   // bit k: corner k is a cell of the map; 0 when none is, or for no number
  float right, down;  // how far the place is from the first
};
MIXPL_HD Footprint footprint_of(float x, float y, const AttentionLevel& level) {
  Footprint f{};
  if (!(x > -1 && y > -1 && x < static_cast<float>(level.width) &&
        y < static_cast<float>(level.height)))
    return f;  // NaN too
  const float left = std::floor(x), top = std::floor(y);
  f.right = x - left;
  f.down = y - top;
  f.left = static_cast<int32_t>(left);
  f.top = static_cast<int32_t>(top);
  const uint32_t columns = (f.left >= 0 ? 1u : 0u) | (f.left + 1 < level.width ? 2u : 0u);
  f.corners = (f.top >= 0 ? columns : 0u) | (f.top + 1 < level.height ? columns << 2 : 0u);
  return f;
}
MIXPL_HD float share_of(const Footprint& f, int corner) {
  return (corner / 2 ? f.down : 1 - f.down) * (corner % 2 ? f.right : 1 - f.right);
}

/// A sample and how it changes as its place moves, from the values (0 outside) of its corners.
struct SampleTerms {
  float value, dx, dy;
};
MIXPL_HD SampleTerms sample_terms(const Footprint& f, const float (&corner)[4]) {
  const float above = corner[1] - corner[0], below = corner[3] - corner[2];
  const float top = fmaf(f.right, above, corner[0]), bottom = fmaf(f.right, below, corner[2]);
  return {fmaf(f.down, bottom - top, top), fmaf(f.down, below - above, above), bottom - top};
}

}  // namespace mixpl
