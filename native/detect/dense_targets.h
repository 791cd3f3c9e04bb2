#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/box_coder.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

/// What an anchor-based dense head should have said; A_l = anchors of level l.
struct DenseTargets {
  std::vector<Tensor> labels;  // per level i32 [N, A_l]: 0 … C-1 object, C background, -1 ignored
  std::vector<Tensor> boxes;   // per level f32 [N, A_l, 4]: encoded box, 0 where there is none
  std::vector<Tensor> weights;     // per level f32 [N, A_l]: 1 where an anchor has a box, else 0
  std::vector<int64_t> positives;  // per image

  /// The reference's loss normaliser: sum over the images of max(positives, 1).
  int64_t average_factor() const;
};

/// Assigns the anchors of all levels together, image by image.
///
/// @param anchors per level f32 [A_l, 4]
/// @param boxes   per image f32 [G, 4]; labels per image i32 [G], 0 … C-1
/// @param valid   per image the anchors of all levels in a row, empty = all; may be empty
/// altogether
/// @param coder   nullptr: `boxes` are the boxes themselves, xyxy
/// @throws        ShapeError, DTypeError
/// @source        mmdetection AnchorHead.get_targets with PseudoSampler
DenseTargets assign_dense_targets(const std::vector<Tensor>& anchors,
                                  const std::vector<Tensor>& boxes,
                                  const std::vector<Tensor>& labels,
                                  const std::vector<std::vector<uint8_t>>& valid, int64_t classes,
                                  const DeltaCoder* coder, const MaxIouOptions& options);

}  // namespace mixpl
