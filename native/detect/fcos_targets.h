#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/points.h"
#include "detect/pyramid.h"
#include "detect/truth.h"

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

/// What an FCOS head should have said; A_l = points of level l. See sum_of for the normalisers.
struct FcosTargets {
  std::vector<Tensor> labels;      // per level i32 [N, A_l]: 0 … C-1 object, C background
  std::vector<Tensor> sides;       // per level f32 [N, A_l, 4], in units of the level
  std::vector<Tensor> centerness;  // per level f32 [N, A_l]; 0 where there is no box
  std::vector<Tensor> positive;    // per level f32 [N, A_l]: 1 where there is a box
};

/// A point answers for the smallest box (the first on ties) in whose centre region it lies,
/// strictly, and whose distances fit its level.
///
/// @param grids  per level
/// @throws       ShapeError
/// @source       mmdetection FCOSHead.get_targets; torchvision FCOS.compute_loss
FcosTargets assign_fcos_targets(const std::vector<PointGrid>& grids, const Truth& truth,
                                int64_t classes, const FcosTargetOptions& options);

/// One level's rule, and how to ask it about a point and a box.
struct FcosRule {
  PointGrid grid;
  float low, high;  // of the largest distance
  float radius;     // pixels; < 0: the whole box

  MIXPL_HD bool takes(float x, float y, const Box& b, const Sides& s, bool torchvision) const {
    const float most = greater(greater(s.left, s.right), greater(s.top, s.bottom));
    if (torchvision ? !(most > low && most < high) : !(most >= low && most <= high)) return false;
    if (!(lesser(lesser(s.left, s.right), lesser(s.top, s.bottom)) > 0)) return false;
    if (radius < 0) return true;
    const float cx = (b.x1 + b.x2) * 0.5f, cy = (b.y1 + b.y2) * 0.5f;
    if (torchvision) return greater(fabsf(x - cx), fabsf(y - cy)) < radius;
    return x - (cx - radius) > 0 && (cx + radius) - x > 0 && y - (cy - radius) > 0 &&
           (cy + radius) - y > 0;
  }
};

/// What loops and kernels see: one point answers.
struct FcosView {
  Pyramid pyramid;
  FcosRule rules[kMostLevels];
  TruthView truth;
  int32_t classes;
  bool torchvision;
  PerLevel<int32_t> labels;
  PerLevel<Sides> sides;
  PerLevel<float> centerness, positive;

  MIXPL_HD void operator()(const Place& p) const {
    const FcosRule& rule = rules[p.level];
    const float x = rule.grid.x(p.cell), y = rule.grid.y(p.cell);
    const int32_t begin = truth.begin(p.image), end = truth.begin(p.image + 1);
    int32_t best = -1;
    float least = 0;
    for (int32_t g = begin; g < end; ++g) {
      const Box b = truth.boxes[g];
      const float rank = torchvision ? -(1e8f - box_area(b)) : box_area(b);
      if (best >= 0 && !(rank < least)) continue;
      if (!rule.takes(x, y, b, encode_sides(x, y, b), torchvision)) continue;
      best = g;
      least = rank;
    }
    const bool found = best >= 0;
    const float unit = static_cast<float>(rule.grid.unit);
    const Sides s = found ? encode_sides(x, y, truth.boxes[best]) : Sides{0, 0, 0, 0};
    labels[p.level][p.at] = found ? truth.labels[best] : classes;
    sides[p.level][p.at] = {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit};
    centerness[p.level][p.at] = found ? centerness_of(s) : 0.0f;
    positive[p.level][p.at] = found ? 1.0f : 0.0f;
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }
};

namespace cpu {
void fill_fcos_targets(int64_t images, const FcosView& view);
}  // namespace cpu
namespace cuda {
void fill_fcos_targets(int64_t images, const FcosView& view);
}  // namespace cuda

}  // namespace mixpl
