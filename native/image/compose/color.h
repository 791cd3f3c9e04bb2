// Colour operations as tables and per-pixel blends.
#pragma once

#include <array>
#include <vector>

#include "image/compose/compose.h"

namespace mixpl {

/// Histograms of one source: R, G, B and grey (0.299 R + 0.587 G + 0.114 B, rounded).
struct ColorStatistics {
  std::array<std::array<int64_t, 256>, 4> histogram{};
  int64_t pixels = 0;
};
ColorStatistics color_statistics(const ComposeSource& source);
/// True when the step's table depends on the source's statistics.
bool needs_statistics(ColorOp op);

using ColorTable = std::array<std::array<uint8_t, 256>, 3>;
/// True for the operations that act on each channel value by itself.
bool is_table(ColorOp op);
ColorTable color_table(const ColorStep& step, const ColorStatistics& statistics);

/// uint8 from float, rounded and saturated.
inline uint8_t to_byte(float v) {
  return static_cast<uint8_t>(v <= 0 ? 0.0f : v >= 255 ? 255.0f : __builtin_rintf(v));
}
inline float grey_of(float r, float g, float b) {
  return __builtin_rintf(0.299f * r + 0.587f * g + 0.114f * b);
}

}  // namespace mixpl
