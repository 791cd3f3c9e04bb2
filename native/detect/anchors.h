#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

/// Anchors of a pyramid. The base box of level l has side strides[l]; every ratio r = h / w and
/// scale s gives w = stride s / sqrt(r), h = stride s sqrt(r), centred on (x stride, y stride).
struct AnchorOptions {
  std::vector<double> strides{8, 16, 32, 64, 128};
  std::vector<double> ratios{0.5, 1, 2};
  std::vector<double> scales{4, 5.039684199579493, 6.3496042078727974};  // 4 2^(i/3)

  int per_cell() const { return static_cast<int>(ratios.size() * scales.size()); }
  /// @throws ConfigError
  void validate() const;
};

/// f32 [H W A, 4] xyxy; cells row-major, within a cell ratios outer, scales inner.
/// @source mmdetection AnchorGenerator (centre offset 0, no rounding)
Tensor level_anchors(const AnchorOptions& options, int level, int64_t height, int64_t width);

}  // namespace mixpl
