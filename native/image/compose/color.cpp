#include "image/compose/color.h"

#include <algorithm>
#include <cmath>

namespace mixpl {

ColorStatistics color_statistics(const ComposeSource& source) {
  ColorStatistics out;
  out.pixels = int64_t{source.width} * source.height;
  const uint8_t* p = source.data;
  for (int64_t i = 0; i < out.pixels; ++i, p += 3) {
    for (int c = 0; c < 3; ++c) ++out.histogram[c][p[c]];
    ++out.histogram[3][to_byte(grey_of(p[0], p[1], p[2]))];
  }
  return out;
}

bool needs_statistics(ColorOp op) {
  return op == ColorOp::auto_contrast || op == ColorOp::equalize || op == ColorOp::contrast;
}

bool is_table(ColorOp op) { return op != ColorOp::sharpness && op != ColorOp::color; }

namespace {

std::array<uint8_t, 256> auto_contrast(const std::array<int64_t, 256>& histogram) {
  int low = 0, high = 255;
  while (low < 255 && !histogram[low]) ++low;
  while (high > 0 && !histogram[high]) --high;
  std::array<uint8_t, 256> table;
  for (int v = 0; v < 256; ++v) {
    // Truncated, as the reference's integer cast.
    const double stretched = high > low ? (v - low) * (255.0 / (high - low)) : v;
    table[v] = static_cast<uint8_t>(std::clamp(stretched, 0.0, 255.0));
  }
  return table;
}

std::array<uint8_t, 256> equalize(const std::array<int64_t, 256>& histogram) {
  int64_t total = 0, last = 0;
  for (int64_t count : histogram) {
    total += count;
    if (count) last = count;
  }
  const int64_t step = (total - last) / 255;
  std::array<uint8_t, 256> table;
  int64_t before = 0;
  for (int v = 0; v < 256; ++v) {
    table[v] = static_cast<uint8_t>(step ? std::min<int64_t>(255, (before + step / 2) / step) : v);
    before += histogram[v];
  }
  return table;
}

}  // namespace

ColorTable color_table(const ColorStep& step, const ColorStatistics& statistics) {
  ColorTable table;
  const float m = step.magnitude;
  double mean = 0;
  if (step.op == ColorOp::contrast) {
    for (int v = 0; v < 256; ++v) mean += double(v) * statistics.histogram[3][v];
    mean = std::nearbyint(mean / std::max<int64_t>(statistics.pixels, 1));
  }
  const int bits = static_cast<int>(std::ceil(m));
  for (int c = 0; c < 3; ++c) {
    if (step.op == ColorOp::auto_contrast)
      table[c] = auto_contrast(statistics.histogram[c]);
    else if (step.op == ColorOp::equalize)
      table[c] = equalize(statistics.histogram[c]);
    else
      for (int v = 0; v < 256; ++v) {
        switch (step.op) {
          case ColorOp::posterize: {
            const int shift = std::clamp(8 - bits, 0, 8);
            table[c][v] = static_cast<uint8_t>((v >> shift) << shift);
            break;
          }
          case ColorOp::solarize:
            table[c][v] = static_cast<uint8_t>(v >= m ? 255 - v : v);
            break;
          case ColorOp::contrast:
            table[c][v] = to_byte(m * v + (1 - m) * float(mean));
            break;
          case ColorOp::brightness:
            table[c][v] = to_byte(m * v);
            break;
          default:
            table[c][v] = static_cast<uint8_t>(v);
        }
      }
  }
  return table;
}

}  // namespace mixpl
