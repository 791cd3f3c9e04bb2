// Points of a pyramid: one a cell, as the anchor-free heads regress from.
#pragma once

#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// The cells of one level and where their points lie: (x + offset) stride_x, (y + offset) stride_y.
struct PointGrid {
  int64_t height = 0, width = 0;      // cells
  double stride_y = 8, stride_x = 8;  // pixels
  double offset = 0.5;                // 0.5: the cell's centre (mmdetection); 0: its corner
  double unit = 8;                    // what distances are measured in: the level's stride

  MIXPL_HD int64_t count() const { return height * width; }
  /// Cells are numbered row by row.
  MIXPL_HD float x(int64_t cell) const {
    return static_cast<float>((static_cast<double>(cell % width) + offset) * stride_x);
  }
  MIXPL_HD float y(int64_t cell) const {
    return static_cast<float>((static_cast<double>(cell / width) + offset) * stride_y);
  }
};

}  // namespace mixpl
