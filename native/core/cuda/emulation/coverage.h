// Which kernels a test run has launched, for scripts/cuda-coverage.mjs.
#pragma once

#include <cstdint>
#include <source_location>

namespace mixpl::cuda::emulation {

/// Counts a launch that ended well. With MIXPL_EMULATION_COVERAGE=FILE set, a line `process, place,
/// function, launches, threads` (tabs between) is appended to FILE whenever a place's launches
/// reach a power of two: test workers are killed, so there is no end to wait for.
void note_launch(const std::source_location& where, int64_t threads);

}  // namespace mixpl::cuda::emulation
