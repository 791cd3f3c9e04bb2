#pragma once

#include "detect/box_math.h"

namespace mixpl {

/// The box of cell `cell` of maps of h x w, one map after another.
MIXPL_HD Box grid_box(int64_t cell, int64_t h, int64_t w, float offset, Sides sides) {
  return decode_sides(static_cast<float>(cell % w) + offset,
                      static_cast<float>(cell / w % h) + offset, sides);
}

}  // namespace mixpl
