#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/box_targets.h"
#include "ops/sigmoid_bce/sigmoid_bce_math.h"

namespace mixpl {

/// The anchors of one level that have a box, images in turn; P of them, see positive_rows. Where a
/// row is -1 all else is 0.
struct GflPositives {
  Tensor rows;    // i32 [P], among [N A_l]
  Tensor sides;   // f32 [P, 4]: from their centres to the sides of their boxes, in strides
  Tensor held;    // f32 [P, 4]: the same inside the bins by 0.1
  Tensor weight;  // f32 [P]: their largest class probability, a constant to the losses
};

/// @param boxes   f32 [N, A_l, 4], positive f32 [N, A_l], of the level
/// @param anchors f32 [A_l, 4]
/// @param logits  f32|bf16 [N, H, W, C]
/// @param bins    R + 1
/// @param most    positives at most
/// @source        mmdetection GFLHead.loss_by_feat_single, DistancePointBBoxCoder
GflPositives gfl_positives(const Tensor& boxes, const Tensor& positive, const Tensor& anchors,
                           double stride, const Tensor& logits, int64_t bins, int64_t most);

/// IoU of each of those boxes with its target, a constant to the losses; f32 [count], by row, 0
/// elsewhere.
/// @param boxes, target f32 [P, 4]
Tensor overlaps_at(const Tensor& rows, const Tensor& boxes, const Tensor& target, int64_t count);

template <typename T>
struct GflView {
  const int32_t* rows;
  const Box *boxes, *anchors;
  int64_t count;  // anchors of the level
  float unit, most;
  const T* logits;
  int64_t classes;
  Sides *sides, *held;
  float* weight;

  MIXPL_HD void operator()(int64_t p) const {
    const int32_t row = rows[p];
    Sides s{0, 0, 0, 0};
    float best = 0;
    if (row >= 0) {
      const Point c = centre_of(anchors[row % count]);
      const Sides pixels = encode_sides(c.x, c.y, boxes[row]);
      s = {pixels.left / unit, pixels.top / unit, pixels.right / unit, pixels.bottom / unit};
      const T* own = logits + row * classes;
      best = float(own[0]);
      for (int64_t k = 1; k < classes; ++k) best = greater(best, float(own[k]));
      best = sigmoid_f32(best);
    }
    sides[p] = s;
    held[p] = {hold(s.left), hold(s.top), hold(s.right), hold(s.bottom)};
    weight[p] = best;
  }
  MIXPL_HD float hold(float side) const { return lesser(greater(side, 0.0f), most); }
};

/// overlaps is 0 before.
struct OverlapAtView {
  const int32_t* rows;
  const Box *boxes, *target;
  float* overlaps;
  MIXPL_HD void operator()(int64_t p) const {
    if (rows[p] >= 0) overlaps[rows[p]] = box_iou(boxes[p], target[p]);
  }
};

namespace cpu {
template <typename T>
void fill_gfl_positives(int64_t count, const GflView<T>& view);
void fill_overlaps_at(int64_t count, const OverlapAtView& view);
}  // namespace cpu
namespace cuda {
template <typename T>
void fill_gfl_positives(int64_t count, const GflView<T>& view);
void fill_overlaps_at(int64_t count, const OverlapAtView& view);
}  // namespace cuda

}  // namespace mixpl
