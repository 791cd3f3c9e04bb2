#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace mixpl::cuda::plan {

/// How many multiprocessors the tiles of a matrix product are chosen for: an H100's, whatever the
/// card, so that a result does not depend on it. Tests set another number to reach every kernel.
inline int64_t multiprocessors = 132;

// Each is on unless its variable is 0: to compare with what came before.
inline bool is_on(const char* variable) {
  const char* value = std::getenv(variable);
  return !value || std::string_view(value) != "0";
}

/// Whether wgmma multiplies bf16 on the cards that have it (sm_90a).
inline bool warpgroups = is_on("MIXPL_CUDA_WGMMA");
/// Whether their hardware copies its tiles (TMA) where it can.
inline bool bulk_copies = warpgroups && is_on("MIXPL_CUDA_TMA");
/// The only one of those tiles that may be used, by its columns; 0 for all.
inline int64_t bulk_columns = [] {
  const char* value = std::getenv("MIXPL_CUDA_TMA_COLUMNS");
  return value ? std::atoi(value) : 0;
}();
/// Whether a stem of three channels and stride 2 takes its bf16 pixels in pairs.
inline bool pixel_pairs = is_on("MIXPL_CUDA_PIXEL_PAIRS");
/// Whether data gradients leave out what the ReLU before would, instead of a pass of its own.
inline bool fused_masks = is_on("MIXPL_CUDA_FUSED_MASKS");

}  // namespace mixpl::cuda::plan
