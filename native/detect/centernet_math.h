// What CenterNet's targets are made of, once for both devices; no loops over points or boxes.
#pragma once

#include "core/dtype.h"
#include "core/math.h"
#include "detect/points.h"
#include "detect/pyramid.h"
#include "detect/truth.h"

namespace mixpl {

constexpr float kLeastHeat = 1e-4f;
constexpr float kFarthest = 9.3f;  // exp(-9.3) is below kLeastHeat
constexpr int kCentreCells = 9;    // 3x3, row by row, about the one that holds a box's centre

struct CenterNetLevel {
  PointGrid grid;
  float from, to;  // half the diagonal of its boxes
};

/// A box as one level sees it.
struct BoxCentre {
  int64_t row, column;  // the cell that holds the box's centre; may be outside the map
  bool fits;            // its half diagonal is the level's
};

struct CenterNetView {
  Pyramid pyramid;
  CenterNetLevel level[kMostLevels];
  TruthView truth;
  int64_t images, classes;
  float spread_factor, least_spread;
  float more_loss;  // see CenterNetTargetOptions::more_positives
  int64_t more;
  PerLevel<float> heat, positive;
  PerLevel<Sides> sides;

  MIXPL_HD BoxCentre centre_in(int l, Box b) const {
    const PointGrid& grid = level[l].grid;
    const float w = b.x2 - b.x1, h = b.y2 - b.y1;
    const float half = sqrtf(w * w + h * h) / 2;
    return {cell_of((b.y1 + b.y2) / 2 / static_cast<float>(grid.stride_y)),
            cell_of((b.x1 + b.x2) / 2 / static_cast<float>(grid.stride_x)),
            half >= level[l].from && half <= level[l].to};
  }
  /// Weighted distance of a cell's point to a box's centre.
  MIXPL_HD float distance(int l, int64_t row, int64_t column, Box b, const BoxCentre& c) const {
    if (c.row == row && c.column == column) return 0;
    const PointGrid& grid = level[l].grid;
    const int64_t cell = row * grid.width + column;
    const Point centre = centre_of(b);
    const float dx = grid.x(cell) - centre.x, dy = grid.y(cell) - centre.y;
    return (dx * dx + dy * dy) / spread(b);
  }
  MIXPL_HD float spread(Box b) const { return greater(spread_factor * box_area(b), least_spread); }

  /// Distances of a cell's point to the sides of a box, and to the nearest of them.
  MIXPL_HD Sides sides_from(int l, int64_t cell, Box b) const {
    const PointGrid& grid = level[l].grid;
    return encode_sides(grid.x(cell), grid.y(cell), b);
  }
  MIXPL_HD static float inside(Sides s) {
    return lesser(lesser(s.left, s.right), lesser(s.top, s.bottom));
  }
  MIXPL_HD Sides in_units(int l, Sides s) const {
    const float unit = static_cast<float>(level[l].grid.unit);
    return {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit};
  }

  /// Whether a cell whose GIoU loss is `loss` is a positive of its box's class.
  /// @param losses of all centre cells of the box, NaN where there is none
  MIXPL_HD bool is_class_positive(float loss, const float* losses) const {
    if (!(loss < more_loss)) return false;
    int64_t as_low = 0;
    for (int i = 0; i < pyramid.levels * kCentreCells; ++i) as_low += losses[i] <= loss;
    return as_low < more;
  }

 private:
  // Towards 0, as the reference's integer conversion; within what an index holds.
  MIXPL_HD static int64_t cell_of(float v) {
    return static_cast<int64_t>(truncf(lesser(greater(v, -1e9f), 1e9f)));
  }
};

/// The cells about the centres of boxes, which what the head predicts there makes positives or not.
template <typename T>
struct CentreCells {
  CenterNetView view;
  PerLevel<const T> predicted;  // sides in units of the level

  struct Cell {
    int64_t row;  // among the level's N A_l points
    float loss;   // NaN: no candidate
  };
  /// Cell k of a box, of all boxes in a row, on a level.
  MIXPL_HD Cell at(int32_t box, int l, int k) const {
    const Cell none{-1, NAN};
    const PointGrid& grid = view.level[l].grid;
    const Box b = view.truth.boxes[box];
    const BoxCentre centre = view.centre_in(l, b);
    const int64_t row = centre.row + k / 3 - 1, column = centre.column + k % 3 - 1;
    if (row < 0 || row >= grid.height || column < 0 || column >= grid.width) return none;
    const int64_t cell = row * grid.width + column;
    const Sides s = view.sides_from(l, cell, b);
    if (!(CenterNetView::inside(s) >= 0)) return none;
    const int64_t at = view.truth.image_of(box, view.images) * grid.count() + cell;
    if (row == centre.row && column == centre.column && centre.fits) return {at, 0};
    const T* p = predicted[l] + 4 * at;
    const Box want = decode_sides(0, 0, view.in_units(l, s)),
              got = decode_sides(0, 0, {float(p[0]), float(p[1]), float(p[2]), float(p[3])});
    return {at, 1 - box_similarity(got, want, IouKind::giou)};
  }
};

}  // namespace mixpl
