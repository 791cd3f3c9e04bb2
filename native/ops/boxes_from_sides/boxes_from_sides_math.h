// Boxes around the origin from their sides, and back for gradients; once for both devices.
#pragma once

#include "detect/box_math.h"

namespace mixpl {

MIXPL_HD Box box_around_origin(Sides s) { return {-s.left, -s.top, s.right, s.bottom}; }

/// dL/dsides from dL/dbox, of a box around any point that does not depend on them.
MIXPL_HD Sides sides_gradient(Box d) { return {-d.x1, -d.y1, d.x2, d.y2}; }

}  // namespace mixpl
