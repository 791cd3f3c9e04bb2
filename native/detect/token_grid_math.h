// Where tokens lie and what encodes it, once for both devices.
#pragma once

#include <cmath>

#include "detect/pyramid.h"

namespace mixpl {

constexpr int kMostMaps = 8;  // of a token grid

constexpr float kTwoPi = 6.28318530717958648f;

/// A token's cell, and how many rows and columns of its level are picture.
struct Cell {
  int64_t row, column;
  int32_t rows, columns;
  MIXPL_HD bool padding() const { return row >= rows || column >= columns; }
  // Shares of the picture.
  MIXPL_HD float y() const { return (static_cast<float>(row) + 0.5f) / static_cast<float>(rows); }
  MIXPL_HD float x() const {
    return (static_cast<float>(column) + 0.5f) / static_cast<float>(columns);
  }
};

/// What loops and kernels know of a grid.
struct GridView {
  Pyramid tokens;
  int32_t width[kMostMaps];  // cells of a row
  const int32_t* valid;      // [N, L, 2]: rows and columns of picture

  MIXPL_HD Cell cell(const Place& p) const {
    const auto cell = static_cast<uint32_t>(p.cell), w = static_cast<uint32_t>(width[p.level]);
    const int32_t* most = valid + 2 * (p.image * tokens.levels + p.level);
    return {cell / w, cell % w, most[0], most[1]};
  }
  MIXPL_HD int64_t index(const Place& p) const { return p.image * tokens.count() + p.in_row; }
};

struct PaddingView {
  GridView grid;
  uint8_t* out;
  MIXPL_HD void operator()(const Place& p) const { out[grid.index(p)] = grid.cell(p).padding(); }
};

struct ReferenceView {
  GridView grid;
  float* out;
  MIXPL_HD void operator()(const Place& p) const {
    const Cell c = grid.cell(p);
    float* to = out + 2 * grid.index(p);
    to[0] = c.x();
    to[1] = c.y();
  }
};

MIXPL_HD bool is_inner(float share) { return share > 0.01f && share < 0.99f; }
MIXPL_HD float logit_of(float share) { return logf(share / (1 - share)); }

struct alignas(16) ProposalLogits {
  float cx, cy, w, h;
};

struct ProposalView {
  GridView grid;
  float side_logit[kMostMaps];  // of the boxes of a level
  bool inner_side[kMostMaps];
  ProposalLogits* logits;
  uint8_t* mask;
  MIXPL_HD void operator()(const Place& p) const {
    const Cell c = grid.cell(p);
    const float x = c.x(), y = c.y(), side = side_logit[p.level];
    const bool none = c.padding() || !is_inner(x) || !is_inner(y) || !inner_side[p.level];
    const float far = INFINITY;
    logits[grid.index(p)] = none ? ProposalLogits{far, far, far, far}
                                 : ProposalLogits{logit_of(x), logit_of(y), side, side};
    mask[grid.index(p)] = none;
  }
};

/// 1 / temperature^(m / pairs): what the m-th of a number's pairs of sine and cosine multiplies it
/// by.
MIXPL_HD float sine_frequency(int64_t m, int64_t pairs, float log2_temperature) {
  return exp2f(-(static_cast<float>(m) / static_cast<float>(pairs)) * log2_temperature);
}

/// Encodings of places. A line is a row or a column of a level: rows of level 0, its columns, rows
/// of level 1, and so on; tokens get their row's half and their column's.
struct SineView {
  Pyramid tokens, rows, lines;  // of an image: tokens, rows of tokens, lines
  int32_t width[kMostMaps];
  const int32_t* valid;  // [N, 2 L]: of lines that are picture
  int64_t images, pairs;
  float log2_temperature, offset;

  /// What sines and cosines are taken of, at frequency 1; line.at counts those of all images.
  MIXPL_HD float angle(const Place& line) const {
    const int32_t last = valid[line.image * lines.levels + line.level];
    const int64_t place = line.cell < last ? line.cell + 1 : last;
    return (static_cast<float>(place) + offset) / (static_cast<float>(last) + 1e-6f) * kTwoPi;
  }
};

/// Encodings of the numbers of boxes.
struct CoordinateView {
  const float* boxes;
  int64_t boxes_count, numbers, pairs;  // numbers: of a box, 2 or 4
  float log2_temperature;
  bool y_first;
  const float* ratios = nullptr;     // [images, levels, (x, y)], of level 0; null: 1
  int64_t of_image = 0, levels = 0;  // numbers of an image

  MIXPL_HD int64_t count() const { return boxes_count * numbers; }
  /// Which number of all boxes the i-th encoding is of; the same swap leads back.
  MIXPL_HD int64_t source(int64_t i) const { return y_first && i % numbers < 2 ? i ^ 1 : i; }
  MIXPL_HD float ratio(int64_t i) const {
    return ratios ? ratios[i / of_image * levels * 2 + source(i) % 2] : 1;
  }
  MIXPL_HD float angle(int64_t i) const { return boxes[source(i)] * ratio(i) * kTwoPi; }
};

}  // namespace mixpl
