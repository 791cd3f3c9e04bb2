#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/points.h"

namespace mixpl {

struct FcosTargetOptions {
  double center_radius = 1.5;  // in units of the level, around a box's centre; 0: the whole box
  /// Largest of a point's four distances, per level: (64 l … ]. Bounds are between(l - 1, l).
  std::vector<double> regress_bounds{64, 128, 256, 512};
  /// torchvision: both bounds are excluded, the centre region is not cut to the box's sides but the
  /// box has to hold the point as well (the same set), and areas are compared as f32(1e8 - area).
  bool torchvision = false;

  /// @throws ConfigError
  void validate(int levels) const;
};

/// What an FCOS head should have said; A_l = points of level l.
struct FcosTargets {
  std::vector<Tensor> labels;      // per level i32 [N, A_l]: 0 … C-1 object, C background
  std::vector<Tensor> sides;       // per level f32 [N, A_l, 4], in units of the level
  std::vector<Tensor> centerness;  // per level f32 [N, A_l]; 0 where there is no box
  std::vector<Tensor> positive;    // per level f32 [N, A_l]: 1 where there is a box
  int64_t positives = 0;
  double centerness_sum = 0;
};

/// A point answers for the smallest box (the first on ties) in whose centre region it lies,
/// strictly, and whose distances fit its level.
///
/// @param grids  per level
/// @param boxes  per image f32 [G, 4]; labels per image i32 [G], 0 … C-1
/// @return       the same for any number of threads
/// @throws       ShapeError, DTypeError
/// @source       mmdetection FCOSHead.get_targets; torchvision FCOS.compute_loss
FcosTargets assign_fcos_targets(const std::vector<PointGrid>& grids,
                                const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                                int64_t classes, const FcosTargetOptions& options);

}  // namespace mixpl
