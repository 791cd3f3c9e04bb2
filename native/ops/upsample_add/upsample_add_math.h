// Which pixels of the larger map a pixel of the smaller one feeds; once for both devices.
#pragma once

#include "core/launch.h"

namespace mixpl {

/// The pixels i with floor(i * from / to) == s are first_fed(s) ... first_fed(s + 1) - 1.
template <typename Int>
MIXPL_HD Int first_fed(Int s, Int to, Int from) {
  return (s * to + from - 1) / from;
}

}  // namespace mixpl
