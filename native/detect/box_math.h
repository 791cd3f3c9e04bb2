// Arithmetic on boxes xyxy, f32, continuous edges (width = x2 - x1); shared by both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// Aligned so that a GPU moves one at a time; tensors' memory is.
struct alignas(16) Box {
  float x1, y1, x2, y2;
};

// a < b ? a : b is one instruction on every target; fminf is a call, for the sake of its NaN rule.
MIXPL_HD float lesser(float a, float b) { return a < b ? a : b; }
MIXPL_HD float greater(float a, float b) { return a > b ? a : b; }

MIXPL_HD float box_area(Box b) { return (b.x2 - b.x1) * (b.y2 - b.y1); }

MIXPL_HD float box_intersection(Box a, Box b) {
  const float w = greater(lesser(a.x2, b.x2) - greater(a.x1, b.x1), 0.0f);
  const float h = greater(lesser(a.y2, b.y2) - greater(a.y1, b.y1), 0.0f);
  return w * h;
}

/// Intersection over union from areas, the union at least 1e-6 (mmdetection's bbox_overlaps).
MIXPL_HD float iou_of_areas(float a, float b, float intersection) {
  const float whole = a + b - intersection;
  return intersection / (whole < 1e-6f ? 1e-6f : whole);  // a box of NaN has IoU NaN
}
MIXPL_HD float box_iou(Box a, Box b) {
  return iou_of_areas(box_area(a), box_area(b), box_intersection(a, b));
}

enum class IouKind : uint8_t { iou, giou, diou, ciou };

/// IoU, or its generalised (Rezatofighi et al. 2019), distance and complete (Zheng et al. 2020)
/// forms, in [-1, 1] ([-1.5, 1] for ciou) for boxes with x1 <= x2 and y1 <= y2.
MIXPL_HD float box_similarity(Box a, Box b, IouKind kind) {
  constexpr float eps = 1e-6f;
  const float inter = box_intersection(a, b);
  const float whole = box_area(a) + box_area(b) - inter;
  const float iou = inter / (whole < eps ? eps : whole);
  if (kind == IouKind::iou) return iou;
  const float cw = greater(a.x2, b.x2) - lesser(a.x1, b.x1);
  const float ch = greater(a.y2, b.y2) - lesser(a.y1, b.y1);
  if (kind == IouKind::giou) {
    const float enclosing = cw * ch;
    return iou - (enclosing - whole) / greater(enclosing, eps);
  }
  const float dx = 0.5f * ((a.x1 + a.x2) - (b.x1 + b.x2));
  const float dy = 0.5f * ((a.y1 + a.y2) - (b.y1 + b.y2));
  const float diou = iou - (dx * dx + dy * dy) / greater(cw * cw + ch * ch, eps);
  if (kind == IouKind::diou) return diou;
  constexpr float four_over_pi2 = 0.405284735f;
  const float turn = atanf((a.x2 - a.x1) / greater(a.y2 - a.y1, eps)) -
                     atanf((b.x2 - b.x1) / greater(b.y2 - b.y1, eps));
  const float v = four_over_pi2 * turn * turn;
  const float alpha = v / greater(1 - iou + v, eps);
  return diou - alpha * v;
}

/// Offsets of a box against an anchor (dx, dy, dw, dh), before they are normalised.
struct alignas(16) Delta {
  float x, y, w, h;
};

MIXPL_HD Delta encode_delta(Box anchor, Box box) {
  const float aw = anchor.x2 - anchor.x1, ah = anchor.y2 - anchor.y1;
  const float bw = box.x2 - box.x1, bh = box.y2 - box.y1;
  return {((box.x1 + box.x2) - (anchor.x1 + anchor.x2)) * 0.5f / aw,
          ((box.y1 + box.y2) - (anchor.y1 + anchor.y2)) * 0.5f / ah, logf(bw / aw), logf(bh / ah)};
}

/// Inverse of encode_delta; dw and dh are held at or below `limit`, and at or above -limit if
/// `both_sides` (mmdetection; torchvision holds the upper side only). NaN ends at the lower bound.
MIXPL_HD Box decode_delta(Box anchor, Delta d, float limit, bool both_sides) {
  const float aw = anchor.x2 - anchor.x1, ah = anchor.y2 - anchor.y1;
  const float low = both_sides ? -limit : -INFINITY;
  const float dw = lesser(greater(d.w, low), limit), dh = lesser(greater(d.h, low), limit);
  const float cx = (anchor.x1 + anchor.x2) * 0.5f + d.x * aw;
  const float cy = (anchor.y1 + anchor.y2) * 0.5f + d.y * ah;
  const float w = aw * expf(dw), h = ah * expf(dh);
  return {cx - 0.5f * w, cy - 0.5f * h, cx + 0.5f * w, cy + 0.5f * h};
}

MIXPL_HD Box clip_box(Box b, float height, float width) {
  return {lesser(greater(b.x1, 0.0f), width), lesser(greater(b.y1, 0.0f), height),
          lesser(greater(b.x2, 0.0f), width), lesser(greater(b.y2, 0.0f), height)};
}

/// Distances of a point to the sides of a box: left, top, right, bottom.
struct alignas(16) Sides {
  float left, top, right, bottom;
};

MIXPL_HD Sides encode_sides(float x, float y, Box b) {
  return {x - b.x1, y - b.y1, b.x2 - x, b.y2 - y};
}
MIXPL_HD Box decode_sides(float x, float y, Sides d) {
  return {x - d.left, y - d.top, x + d.right, y + d.bottom};
}

struct Point {
  float x, y;
};

MIXPL_HD Point centre_of(Box b) { return {(b.x1 + b.x2) * 0.5f, (b.y1 + b.y2) * 0.5f}; }

/// Whether the centre of an anchor lies inside a box by more than the 0.01 pixels that ATSS and
/// TOOD ask for.
MIXPL_HD bool holds_centre(Box box, Box anchor) {
  const Point c = centre_of(anchor);
  const Sides s = encode_sides(c.x, c.y, box);
  return lesser(lesser(s.left, s.top), lesser(s.right, s.bottom)) > 0.01f;
}

/// How central the point is: sqrt of the products over both axes of (smaller / larger distance).
/// @source Tian et al. 2019, eq. 3
MIXPL_HD float centerness_of(Sides s) {
  const float h = lesser(s.left, s.right) / greater(s.left, s.right);
  const float v = lesser(s.top, s.bottom) / greater(s.top, s.bottom);
  return sqrtf(h * v);
}

}  // namespace mixpl
