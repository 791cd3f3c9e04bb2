// Where cells lie in shifted windows, once for both devices.
#pragma once

#include <cstdint>

#include "core/launch.h"
#include "ops/windows/windows.h"

namespace mixpl {

/// Windows along one axis of a map.
struct WindowAxis {
  int64_t cells, windows, size, shift;

  static WindowAxis of(int64_t cells, const WindowOptions& o) {
    return {cells, (cells + o.size - 1) / o.size, o.size, o.shift};
  }
  MIXPL_HD int64_t padded() const { return windows * size; }
  /// The cell of the padded map that is at `place` of the rolled one; beyond `cells` it is padding.
  MIXPL_HD int64_t cell_at(int64_t place) const {
    const int64_t cell = place + shift;
    return cell < padded() ? cell : cell - padded();
  }
  /// The inverse.
  MIXPL_HD int64_t place_of(int64_t cell) const {
    return cell < shift ? cell - shift + padded() : cell - shift;
  }
  /// Whether a token of this window, its `inner`-th along the axis, came around from the other end.
  MIXPL_HD bool wrapped(int64_t window, int64_t inner) const {
    return window == windows - 1 && inner >= size - shift;
  }
};

}  // namespace mixpl
