#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace mixpl::cuda::plan {

/// How many multiprocessors the tiles of a matrix product are chosen for: an H100's, whatever the
/// card, so that a result does not depend on it. Tests set another number to reach every kernel.
inline int64_t multiprocessors = 132;

inline bool is(const char* variable, const char* wanted) {
  const char* value = std::getenv(variable);
  return value && std::string_view(value) == wanted;
}

/// Whether wgmma multiplies bf16 on the cards that have it (sm_90a).
inline bool warpgroups = !is("MIXPL_CUDA_WGMMA", "0");
/// Whether their hardware copies its tiles (TMA) where it can.
inline bool bulk_copies = warpgroups && !is("MIXPL_CUDA_TMA", "0");
/// Whether a stem of three channels and stride 2 takes its bf16 pixels in pairs.
inline bool pixel_pairs = is("MIXPL_CUDA_PIXEL_PAIRS", "1");

}  // namespace mixpl::cuda::plan
