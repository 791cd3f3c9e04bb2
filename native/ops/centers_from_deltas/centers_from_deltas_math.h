// Boxes moved and scaled by deltas, once for both devices.
#pragma once

#include <cmath>

#include "detect/box_coder.h"
#include "ops/boxes_from_centers/boxes_from_centers_math.h"

namespace mixpl {

/// One axis of a box: centre and size.
struct AxisOfBox {
  float center, size;
};

/// How one axis is changed: the shift in shares of the size, and the size's factor.
struct AxisChange {
  float shift, factor;
  bool held;  // the factor's logarithm lies beyond the limit
};
/// @param axis 0: across, 1: down
MIXPL_HD AxisChange change_of(float move, float grow, int axis, const DeltaCoder& coder) {
  const float log_size = grow * coder.stds[2 + axis] + coder.means[2 + axis];
  const float low = coder.both_sides ? -coder.limit : -INFINITY;
  const bool above = log_size > coder.limit, below = log_size < low;  // a NaN is neither
  return {move * coder.stds[axis] + coder.means[axis],
          expf(above ? coder.limit : (below ? low : log_size)), above || below};
}

MIXPL_HD AxisOfBox changed(AxisOfBox r, AxisChange c) {
  return {r.center + c.shift * r.size, r.size * c.factor};
}
/// d * slope; what has no gradient passes none on, whatever the slope is.
MIXPL_HD float passed_on(float d, float slope) { return d == 0 ? 0.0f : d * slope; }

/// dL/ddelta of the move and of the growth, from dL/dbox.
MIXPL_HD AxisOfBox delta_gradient(AxisOfBox d, AxisOfBox r, AxisChange c, int axis,
                                  const DeltaCoder& coder) {
  return {passed_on(d.center, r.size * coder.stds[axis]),
          c.held ? 0.0f : passed_on(d.size, r.size * c.factor * coder.stds[2 + axis])};
}
/// dL/dreference.
MIXPL_HD AxisOfBox reference_gradient(AxisOfBox d, AxisChange c) {
  return {d.center, passed_on(d.center, c.shift) + passed_on(d.size, c.factor)};
}

/// The axes of four numbers (cx, cy, w, h), deltas included.
MIXPL_HD AxisOfBox axis_of(CenterBox b, int axis) {
  return axis == 0 ? AxisOfBox{b.cx, b.w} : AxisOfBox{b.cy, b.h};
}
MIXPL_HD CenterBox joined(AxisOfBox x, AxisOfBox y) { return {x.center, y.center, x.size, y.size}; }

MIXPL_HD CenterBox box_from_delta(CenterBox delta, CenterBox reference, const DeltaCoder& coder) {
  const auto axis = [&](int i) {
    const AxisOfBox d = axis_of(delta, i);
    return changed(axis_of(reference, i), change_of(d.center, d.size, i, coder));
  };
  return joined(axis(0), axis(1));
}

struct BoxDeltaGradients {
  CenterBox delta, reference;
};
MIXPL_HD BoxDeltaGradients box_delta_gradients(CenterBox dbox, CenterBox delta, CenterBox reference,
                                               const DeltaCoder& coder) {
  AxisOfBox ddelta[2], dreference[2];
  for (int i = 0; i < 2; ++i) {
    const AxisOfBox d = axis_of(delta, i), g = axis_of(dbox, i);
    const AxisChange c = change_of(d.center, d.size, i, coder);
    ddelta[i] = delta_gradient(g, axis_of(reference, i), c, i, coder);
    dreference[i] = reference_gradient(g, c);
  }
  return {joined(ddelta[0], ddelta[1]), joined(dreference[0], dreference[1])};
}

}  // namespace mixpl
