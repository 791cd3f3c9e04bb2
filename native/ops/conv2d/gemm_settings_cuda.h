#pragma once

#include <cstdint>

namespace mixpl::cuda::plan {

/// How many multiprocessors the tiles of a matrix product are chosen for: an H100's, whatever the
/// card, so that a result does not depend on it. Tests set another number to reach every kernel.
inline int64_t multiprocessors = 132;

}  // namespace mixpl::cuda::plan
