// Colour operations: tables for those that act on each value by itself, blends for the other two.
#pragma once

#include <array>
#include <vector>

#include "image/compose/color_math.h"
#include "image/compose/compose.h"

namespace mixpl {

/// Histograms of one source: R, G, B and grey.
struct ColorStatistics {
  std::array<std::array<int64_t, 256>, 4> histogram{};
  int64_t pixels = 0;
};
ColorStatistics color_statistics(const ComposeSource& source);
/// True when the operation's table depends on the source's statistics.
bool needs_statistics(ColorOp op);

using ColorTable = std::array<std::array<uint8_t, 256>, 3>;
/// True for the operations that act on each channel value by itself.
bool is_table(ColorOp op);
/// Tables of R, G, B for an operation with is_table(op).
ColorTable color_table(const ColorStep& step, const ColorStatistics& statistics);

/// A colour operation made ready for rows whose channels are in the network's order.
struct ColorStage {
  ColorOp op;
  Blend blend;
  ColorTable table;  // is_table(op) only
};
ColorStage color_stage(const ColorStep& step, const ColorStatistics& statistics, bool bgr);

namespace cpu {

/// A block of rows of one layer, 8-bit, channels in the network's order.
struct ByteRows {
  int rows = 0, width = 0;
  std::vector<uint8_t> values;  // [rows, width, 3]
  /// Columns [begin, end) of each row that the operations may change.
  std::vector<std::array<int, 2>> spans;
  uint8_t* row(int y) { return values.data() + size_t(y) * width * 3; }
};

/// Applies the stages in order. Rows are what the layer has: beyond its first and last row and
/// column the 3x3 filter mirrors (OpenCV's reflect-101), so each sharpness stage spoils one row at
/// an end that is not the layer's own; the caller provides that many more.
void apply_color(const std::vector<ColorStage>& stages, bool bgr, ByteRows& rows,
                 std::vector<uint8_t>& scratch);

}  // namespace cpu
}  // namespace mixpl
