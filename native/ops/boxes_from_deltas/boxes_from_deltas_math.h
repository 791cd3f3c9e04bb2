// The gradient of DeltaCoder::decode, once for both devices.
#pragma once

#include <cmath>

#include "detect/box_coder.h"

namespace mixpl {

/// dL/ddelta of one box from dL/dbox: x1 = cx - w / 2, x2 = cx + w / 2 with
/// cx = ax + (dx std + mean) aw and w = aw exp(dw std + mean).
MIXPL_HD Delta delta_gradient(Box dbox, Box anchor, Delta delta, const DeltaCoder& coder) {
  const float d[4] = {dbox.x1, dbox.y1, dbox.x2, dbox.y2};
  const float sides[2] = {anchor.x2 - anchor.x1, anchor.y2 - anchor.y1};
  const float sizes[2] = {delta.w, delta.h};
  float out[4];
  for (int axis = 0; axis < 2; ++axis) {
    const float shift = d[axis] + d[axis + 2], spread = d[axis + 2] - d[axis];
    out[axis] = shift * sides[axis] * coder.stds[axis];
    const float size = sizes[axis] * coder.stds[2 + axis] + coder.means[2 + axis];
    const bool held = size > coder.limit || (coder.both_sides && size < -coder.limit);
    out[2 + axis] = spread == 0 || held
                        ? 0.0f
                        : 0.5f * spread * sides[axis] * expf(size) * coder.stds[2 + axis];
  }
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace mixpl
