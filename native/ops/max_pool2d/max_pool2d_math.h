// Which value wins a window; once for both devices.
#pragma once

#include "core/launch.h"

namespace mixpl {

/// Whether v, met after `best` (at = -1: nothing was), is the window's largest so far: the first of
/// equals stays, the last NaN wins. Of numbers, or of vectors of them.
template <typename V, typename At>
MIXPL_HD auto wins(V v, V best, At at) {
  return (v > best) | (v != v) | (at < 0);
}

}  // namespace mixpl
