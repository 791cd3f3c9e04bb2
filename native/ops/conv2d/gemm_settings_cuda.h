#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace mixpl::cuda::plan {

/// How many multiprocessors the tiles of a matrix product are chosen for: an H100's, whatever the
/// card, so that a result does not depend on it. Tests set another number to reach every kernel.
inline int64_t multiprocessors = 132;

/// Whether wgmma multiplies bf16 on the cards that have it (sm_90a). Off until a card has measured
/// it.
inline bool warpgroups = [] {
  const char* value = std::getenv("MIXPL_CUDA_WGMMA");
  return value && std::string_view(value) == "1";
}();

}  // namespace mixpl::cuda::plan
