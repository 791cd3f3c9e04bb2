// How boxes become numbers that a network regresses, and back.
#pragma once

#include <array>

#include "core/options.h"
#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

/// Delta coder (Girshick 2015): (delta - mean) / std against an anchor.
struct DeltaCoder {
  std::array<float, 4> means{0, 0, 0, 0}, stds{1, 1, 1, 1};
  float limit = 4.135166556742356f;  // ln(1000 / 16), of dw and dh
  bool both_sides = true;            // mmdetection; false: upper side only (torchvision)

  MIXPL_HD Delta encode(Box anchor, Box box) const {
    const Delta d = encode_delta(anchor, box);
    return {(d.x - means[0]) / stds[0], (d.y - means[1]) / stds[1], (d.w - means[2]) / stds[2],
            (d.h - means[3]) / stds[3]};
  }
  MIXPL_HD Box decode(Box anchor, Delta d) const {
    return decode_delta(anchor,
                        {d.x * stds[0] + means[0], d.y * stds[1] + means[1],
                         d.w * stds[2] + means[2], d.h * stds[3] + means[3]},
                        limit, both_sides);
  }
};

/// { means, stds, limit, bothSides }. @throws RangeError in the name of `op`
DeltaCoder read_delta_coder(const char* op, const Options& options);

/// Distance coder (Tian et al. 2019, FCOS): distances of a point to the sides of its box.
struct DistanceCoder {
  float most = 0;  // > 0: encoded distances are held in [0, most - 0.1] (mmdetection's max_dis)

  MIXPL_HD Sides encode(float x, float y, Box box) const {
    const Sides d = encode_sides(x, y, box);
    if (!(most > 0)) return d;
    const float high = most - 0.1f;
    return {lesser(greater(d.left, 0.0f), high), lesser(greater(d.top, 0.0f), high),
            lesser(greater(d.right, 0.0f), high), lesser(greater(d.bottom, 0.0f), high)};
  }
  MIXPL_HD Box decode(float x, float y, Sides d) const { return decode_sides(x, y, d); }
};

/// anchors, boxes f32 [B, 4] -> deltas f32 [B, 4]. @throws ShapeError, DTypeError
Tensor encode_boxes(const Tensor& anchors, const Tensor& boxes, const DeltaCoder& coder);
/// anchors, deltas f32 [B, 4] -> boxes f32 [B, 4]. @throws ShapeError, DTypeError
Tensor decode_boxes(const Tensor& anchors, const Tensor& deltas, const DeltaCoder& coder);

/// points f32 [B, 2] (x, y), boxes f32 [B, 4] -> left, top, right, bottom f32 [B, 4].
/// @throws ShapeError, DTypeError
Tensor encode_distances(const Tensor& points, const Tensor& boxes, const DistanceCoder& coder);
/// points f32 [B, 2], distances f32 [B, 4] -> boxes f32 [B, 4]. @throws ShapeError, DTypeError
Tensor decode_distances(const Tensor& points, const Tensor& distances, const DistanceCoder& coder);

}  // namespace mixpl
