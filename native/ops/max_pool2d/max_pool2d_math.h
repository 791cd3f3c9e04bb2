// Which value wins a window; once for both devices.
#pragma once

#include "core/launch.h"

namespace mixpl {

/// Whether v, met after `best` (at = -1: nothing was), is the window's largest so far: the first of
/// equals stays, the last NaN wins. Bitwise: no branches, so that loops vectorise.
MIXPL_HD bool wins(float v, float best, int at) { return (v > best) | (v != v) | (at < 0); }

}  // namespace mixpl
