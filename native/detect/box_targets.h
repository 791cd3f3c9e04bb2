#pragma once

#include <vector>

#include "core/tensor.h"
#include "detect/anchors.h"
#include "detect/max_iou_assigner.h"

namespace mixpl {

/// What the anchors of a dense head answer for, when the loss compares decoded boxes; A_l = anchors
/// of level l.
struct BoxTargets {
  std::vector<Tensor> labels;  // per level i32 [N, A_l]: 0 … C-1 object, C background, -1 ignored
  std::vector<Tensor> boxes;   // per level f32 [N, A_l, 4] xyxy; 0 where there is none
  std::vector<Tensor> positive;  // per level f32 [N, A_l]: 1 where an anchor has a box, else 0
  Tensor positives;              // f32 [N], see count_positives and average_factor
};

/// Spreads an assignment over the levels.
///
/// @param assigned i32 [N, A]: a box of the image, kNegative or kIgnored
/// @param units    per level what its boxes are measured in, pixels; empty: 1
/// @throws         ShapeError
BoxTargets box_targets(const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                       int64_t classes, const std::vector<double>& units = {});

/// How central an anchor's centre is in its box: sqrt of the products over both axes of (smaller
/// distance to a side / larger). Per level f32 [N, A_l]; 0 without a box.
/// @source mmdetection ATSSHead.centerness_target
std::vector<Tensor> anchor_centerness(const Anchors& anchors, const Truth& truth,
                                      const Tensor& assigned);

/// IoU of each positive with its box, 0 elsewhere; a constant to the losses.
/// @param boxes, target f32 [B, 4]; positive f32, B numbers. @return f32 [B]
Tensor overlaps_of(const Tensor& boxes, const Tensor& target, const Tensor& positive);

struct BoxTargetView {
  Pyramid pyramid;
  const int32_t* assigned;
  TruthView truth;
  int32_t classes;
  float unit[kMostLevels];
  PerLevel<int32_t> labels;
  PerLevel<Box> boxes;
  PerLevel<float> positive;

  MIXPL_HD void operator()(const Place& p) const {
    const int32_t own = assigned[p.image * pyramid.count() + p.in_row];
    const int32_t first = truth.begin(p.image);
    const float by = unit[p.level];
    const Box b = own >= 0 ? truth.boxes[first + own] : Box{0, 0, 0, 0};
    labels[p.level][p.at] = label_of(own, truth.labels + first, classes);
    boxes[p.level][p.at] = {b.x1 / by, b.y1 / by, b.x2 / by, b.y2 / by};
    positive[p.level][p.at] = own >= 0 ? 1.0f : 0.0f;
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }
};

struct CenternessView {
  Pyramid pyramid;
  const Box* anchors;
  const int32_t* assigned;
  TruthView truth;
  PerLevel<float> centerness;

  MIXPL_HD void operator()(const Place& p) const {
    const int32_t own = assigned[p.image * pyramid.count() + p.in_row];
    float value = 0;
    if (own >= 0) {
      const Point c = centre_of(anchors[p.in_row]);
      value = centerness_of(encode_sides(c.x, c.y, truth.boxes[truth.begin(p.image) + own]));
    }
    centerness[p.level][p.at] = value;
  }
  MIXPL_HD void operator()(int64_t i) const { (*this)(place_of(pyramid, i)); }
};

struct OverlapView {
  const Box *boxes, *target;
  const float* positive;
  float* overlaps;
  MIXPL_HD void operator()(int64_t i) const {
    overlaps[i] = positive[i] > 0 ? box_iou(boxes[i], target[i]) : 0.0f;
  }
};

namespace cpu {
void fill_box_targets(int64_t images, const BoxTargetView& view);
void fill_anchor_centerness(int64_t images, const CenternessView& view);
void fill_overlaps(int64_t count, const OverlapView& view);
}  // namespace cpu
namespace cuda {
void fill_box_targets(int64_t images, const BoxTargetView& view);
void fill_anchor_centerness(int64_t images, const CenternessView& view);
void fill_overlaps(int64_t count, const OverlapView& view);
}  // namespace cuda

}  // namespace mixpl
