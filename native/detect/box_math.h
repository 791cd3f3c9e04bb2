// Arithmetic on boxes xyxy, f32, continuous edges (width = x2 - x1); shared by both devices.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/launch.h"

namespace mixpl {

struct Box {
  float x1, y1, x2, y2;
};

MIXPL_HD float box_area(Box b) { return (b.x2 - b.x1) * (b.y2 - b.y1); }

MIXPL_HD float box_intersection(Box a, Box b) {
  const float w = fminf(a.x2, b.x2) - fmaxf(a.x1, b.x1);
  const float h = fminf(a.y2, b.y2) - fmaxf(a.y1, b.y1);
  return w > 0 && h > 0 ? w * h : 0.0f;
}

/// Intersection over union, the union at least 1e-6 (mmdetection's bbox_overlaps).
MIXPL_HD float box_iou(Box a, Box b) {
  const float inter = box_intersection(a, b);
  return inter / fmaxf(box_area(a) + box_area(b) - inter, 1e-6f);
}

/// Offsets of a box against an anchor (dx, dy, dw, dh), before they are normalised.
struct Delta {
  float x, y, w, h;
};

MIXPL_HD Delta encode_delta(Box anchor, Box box) {
  const float aw = anchor.x2 - anchor.x1, ah = anchor.y2 - anchor.y1;
  const float bw = box.x2 - box.x1, bh = box.y2 - box.y1;
  return {((box.x1 + box.x2) - (anchor.x1 + anchor.x2)) * 0.5f / aw,
          ((box.y1 + box.y2) - (anchor.y1 + anchor.y2)) * 0.5f / ah, logf(bw / aw), logf(bh / ah)};
}

/// Inverse of encode_delta; dw and dh are held at or below `limit`, and at or above -limit if
/// `both_sides` (mmdetection; torchvision holds the upper side only).
MIXPL_HD Box decode_delta(Box anchor, Delta d, float limit, bool both_sides) {
  const float aw = anchor.x2 - anchor.x1, ah = anchor.y2 - anchor.y1;
  const float low = both_sides ? -limit : -INFINITY;
  const float dw = fminf(fmaxf(d.w, low), limit), dh = fminf(fmaxf(d.h, low), limit);
  const float cx = (anchor.x1 + anchor.x2) * 0.5f + d.x * aw;
  const float cy = (anchor.y1 + anchor.y2) * 0.5f + d.y * ah;
  const float w = aw * expf(dw), h = ah * expf(dh);
  return {cx - 0.5f * w, cy - 0.5f * h, cx + 0.5f * w, cy + 0.5f * h};
}

MIXPL_HD Box clip_box(Box b, float height, float width) {
  return {fminf(fmaxf(b.x1, 0.0f), width), fminf(fmaxf(b.y1, 0.0f), height),
          fminf(fmaxf(b.x2, 0.0f), width), fminf(fmaxf(b.y2, 0.0f), height)};
}

}  // namespace mixpl
