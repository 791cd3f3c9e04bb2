// Appending to a list that many threads fill at once.
#pragma once

#include <cstdint>

#include "core/cuda/intrinsics.h"

namespace mixpl::cuda {

/// A place for each lane that wants one, behind a counter; `end`: behind the warp's last, 0 when
/// none wants one. All lanes of the warp must call. One addition a warp: those to one address take
/// turns.
struct Places {
  int32_t own, end;
};
MIXPL_DEVICE Places take_places(bool wants, int32_t* counter) {
  const uint32_t lanes = ballot(wants);
  if (lanes == 0) return {0, 0};
  int32_t first = 0;
  if (lane() == 0) first = atomic_add(counter, popcount(lanes));
  first = shfl(first, 0);
  return {first + popcount(lanes & ((1u << lane()) - 1)), first + popcount(lanes)};
}

}  // namespace mixpl::cuda
