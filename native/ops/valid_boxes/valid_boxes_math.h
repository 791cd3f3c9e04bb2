#pragma once

#include "detect/box_math.h"

namespace mixpl {

MIXPL_HD bool inverted(Box b) { return b.x1 > b.x2 || b.y1 > b.y2; }

}  // namespace mixpl
