#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/centernet_math.h"
#include "detect/points.h"
#include "detect/truth.h"

namespace mixpl {

struct CenterNetTargetOptions {
  /// Half the diagonal of a level's boxes in pixels, both bounds included; the last level has no
  /// upper one.
  std::vector<double> regress_from{0, 64, 128, 256, 512}, regress_to{80, 160, 320, 640};
  double min_overlap = 0.8;          // IoU that a shift by the heat's radius leaves
  double min_radius = 4;             // pixels
  double more_positives_loss = 0.2;  // a cell below this GIoU loss is a positive of its box,
  int64_t more_positives = 9;        // one less than this many of a box at most

  /// @throws ConfigError
  void validate(int levels) const;
};

/// What an updated CenterNet head should have said; A_l = points of level l.
struct CenterNetTargets {
  std::vector<Tensor> heat;             // per level f32 [N, A_l, C] in [0, 1]
  std::vector<Tensor> sides;            // per level f32 [N, A_l, 4], in units of the level
  std::vector<Tensor> positive;         // per level f32 [N, A_l]: 1 where there is a box to regress
  std::vector<Tensor> class_positives;  // per level i32 [P_l, 2]: row n A_l + point, or -1 for
                                        // none, and class
  Tensor num_class_positives;           // f32 [1], over all levels, at least 1
};

/// Regression: a point answers for the box in whose 3x3 centre cells and whose inside it lies and
/// whose half diagonal fits the level; of several for the one at the least weighted distance (the
/// first on ties). Weighted distance: squared distance to the box's centre, 0 at the cell that
/// holds it, over max(2 delta^2 area, min_radius^2), delta = (1 - min_overlap) / (1 + min_overlap).
///
/// Heat of a class: exp(-least weighted distance over its boxes), 0 below 1e-4, at every point of
/// every level. Without boxes 0 (the reference fills it with C).
///
/// Classification positives: of a box's 3x3 cells of every level inside it, those whose predicted
/// sides have a GIoU loss below more_positives_loss and below the more_positives-th least loss of
/// the box; the centre cell of a level that fits counts as 0. A box gives each cell once, two boxes
/// of a class may give it twice. A centre outside the map gives no cell there (the reference takes
/// its first cell).
///
/// @param grids     per level; the points have an offset of 0.5
/// @param predicted per level f32|bf16 [N, H, W, 4], sides in units of the level
/// @param truth     labels in 0 ... C-1
/// @throws          ShapeError, DTypeError, DeviceError
/// @source          Zhou et al. 2021, arXiv:2103.07461; mmdetection CenterNetUpdateHead.get_targets
///                  and add_cls_pos_inds
CenterNetTargets assign_centernet_targets(const std::vector<PointGrid>& grids,
                                          const std::vector<Tensor>& predicted, const Truth& truth,
                                          int64_t classes, const CenterNetTargetOptions& options);

namespace cpu {
void fill_centernet_targets(const CenterNetView& view);
/// Makes the pairs of each level, and counts them into `count` f32 [1].
void find_class_positives(const CenterNetView& view, const std::vector<Tensor>& predicted,
                          int64_t boxes, std::vector<Tensor>& pairs, Tensor& count);
}  // namespace cpu
namespace cuda {
void fill_centernet_targets(const CenterNetView& view);
void find_class_positives(const CenterNetView& view, const std::vector<Tensor>& predicted,
                          int64_t boxes, std::vector<Tensor>& pairs, Tensor& count);
}  // namespace cuda

}  // namespace mixpl
