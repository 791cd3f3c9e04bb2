#include "image/compose/color.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace mixpl {

ColorStatistics color_statistics(const ComposeSource& source) {
  ColorStatistics out;
  out.pixels = int64_t{source.width} * source.height;
  constexpr int64_t kLeastPixels = 1 << 16;  // worth a thread of their own
  // Whole numbers: the order in which threads add theirs does not matter.
  parallel_chunks(out.pixels, kLeastPixels, [&](int64_t begin, int64_t end) {
    // Neighbours are often equal; two sets of counters keep one add from waiting for the last.
    std::vector<std::array<int32_t, 256>> counts(8, std::array<int32_t, 256>{});
    const uint8_t* p = source.data + 3 * begin;
    for (int64_t i = begin; i < end; ++i, p += 3) {
      auto* set = counts.data() + 4 * (i & 1);
      ++set[0][p[0]];
      ++set[1][p[1]];
      ++set[2][p[2]];
      ++set[3][grey_of(p[0], p[1], p[2])];
    }
#pragma omp critical(mixpl_color_statistics)
    for (int c = 0; c < 4; ++c)
      for (int v = 0; v < 256; ++v) out.histogram[c][v] += int64_t{counts[c][v]} + counts[4 + c][v];
  });
  return out;
}

bool needs_statistics(ColorOp op) {
  return op == ColorOp::auto_contrast || op == ColorOp::equalize || op == ColorOp::contrast;
}

bool is_table(ColorOp op) { return op != ColorOp::sharpness && op != ColorOp::color; }

namespace {

using Histogram = std::array<int64_t, 256>;

template <typename F>
std::array<uint8_t, 256> table_of(F&& entry) {
  std::array<uint8_t, 256> table;
  for (int v = 0; v < 256; ++v) table[v] = entry(v);
  return table;
}

std::array<uint8_t, 256> auto_contrast(const Histogram& histogram) {
  int low = 0, high = 255;
  while (low < 255 && !histogram[low]) ++low;
  while (high > 0 && !histogram[high]) --high;
  return table_of([=](int v) { return stretched(v, low, high); });
}

std::array<uint8_t, 256> equalize(const Histogram& histogram, int64_t pixels) {
  int64_t highest = 0, before = 0;
  for (int64_t count : histogram)
    if (count) highest = count;
  const int64_t step = equalized_step(pixels, highest);
  return table_of([&](int v) {
    const uint8_t value = equalized(v, before, step);
    before += histogram[v];
    return value;
  });
}

float mean_of(const Histogram& histogram, int64_t pixels) {
  double sum = 0;
  for (int v = 0; v < 256; ++v) sum += double(v) * histogram[v];
  return rounded_mean(sum, pixels);
}

}  // namespace

ColorTable color_table(const ColorStep& step, const ColorStatistics& statistics) {
  const auto& histogram = statistics.histogram;
  const double m = step.magnitude;
  const Blend blend = blend_of(m);
  ColorTable table;
  switch (step.op) {
    case ColorOp::auto_contrast:
      for (int c = 0; c < 3; ++c) table[c] = auto_contrast(histogram[c]);
      return table;
    case ColorOp::equalize:
      for (int c = 0; c < 3; ++c) table[c] = equalize(histogram[c], statistics.pixels);
      return table;
    case ColorOp::posterize:
      table[0] = table_of([=](int v) { return posterized(v, m); });
      break;
    case ColorOp::solarize:
      table[0] = table_of([=](int v) { return solarized(v, m); });
      break;
    default: {
      const float other =
          step.op == ColorOp::contrast ? mean_of(histogram[3], statistics.pixels) : 0;
      table[0] = table_of([=](int v) { return blended(blend, v, other); });
    }
  }
  table[1] = table[2] = table[0];
  return table;
}

ColorStage color_stage(const ColorStep& step, const ColorStatistics& statistics, bool bgr) {
  ColorStage stage{step.op, blend_of(step.magnitude), {}};
  if (is_table(step.op)) stage.table = color_table(step, statistics);
  if (bgr) std::swap(stage.table[0], stage.table[2]);
  return stage;
}

namespace cpu {
namespace {

void look_up(const ColorTable& table, uint8_t* values, int pixels) {
  const uint8_t *t0 = table[0].data(), *t1 = table[1].data(), *t2 = table[2].data();
  for (int i = 0; i < pixels; ++i, values += 3) {
    values[0] = t0[values[0]];
    values[1] = t1[values[1]];
    values[2] = t2[values[2]];
  }
}

void saturate_color(Blend blend, bool bgr, uint8_t* values, int pixels) {
  for (int i = 0; i < pixels; ++i, values += 3) {
    const uint8_t grey =
        bgr ? grey_of(values[2], values[1], values[0]) : grey_of(values[0], values[1], values[2]);
    for (int c = 0; c < 3; ++c) values[c] = saturated(blend, values[c], grey);
  }
}

void sharpen(Blend blend, ByteRows& rows, std::vector<uint8_t>& scratch) {
  const int width = rows.width, row_values = 3 * width;
  scratch.assign(rows.values.begin(), rows.values.end());
  std::vector<int> column_sums(row_values);
  for (int y = 0; y < rows.rows; ++y) {
    const auto [begin, end] = rows.spans[y];
    if (begin >= end) continue;
    const uint8_t* above = scratch.data() + size_t(mirror(y - 1, rows.rows)) * row_values;
    const uint8_t* here = scratch.data() + size_t(y) * row_values;
    const uint8_t* below = scratch.data() + size_t(mirror(y + 1, rows.rows)) * row_values;
    for (int i = 0; i < row_values; ++i) column_sums[i] = above[i] + here[i] + below[i];
    uint8_t* out = rows.row(y);
    const auto one = [&](int i, int left, int right) {
      out[i] = sharpened(blend, column_sums[left] + column_sums[i] + column_sums[right], here[i]);
    };
    const int first = std::max(begin, 1), last = std::min(end, width - 1);
    for (int i = 3 * first; i < 3 * last; ++i) one(i, i - 3, i + 3);
    for (int x : {0, width - 1})
      if (x >= begin && x < end)
        for (int c = 0; c < 3; ++c)
          one(3 * x + c, 3 * mirror(x - 1, width) + c, 3 * mirror(x + 1, width) + c);
  }
}

}  // namespace

void apply_color(const std::vector<ColorStage>& stages, bool bgr, ByteRows& rows,
                 std::vector<uint8_t>& scratch) {
  for (const ColorStage& stage : stages) {
    if (stage.op == ColorOp::sharpness) {
      sharpen(stage.blend, rows, scratch);
      continue;
    }
    for (int y = 0; y < rows.rows; ++y) {
      const auto [begin, end] = rows.spans[y];
      uint8_t* values = rows.row(y) + 3 * begin;
      if (stage.op == ColorOp::color)
        saturate_color(stage.blend, bgr, values, end - begin);
      else
        look_up(stage.table, values, end - begin);
    }
  }
}

}  // namespace cpu
}  // namespace mixpl
