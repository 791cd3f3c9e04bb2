// For tests, from the binding: what an emulated device does differently from now on.
#pragma once

#include <cstdint>

namespace mixpl::cuda {

/// @param order_seed of the order of blocks and threads, 0: one after another
/// @param poison     the byte that fills fresh memory
/// @throws DeviceError where nothing is emulated
void set_emulation(uint64_t order_seed, int poison);

}  // namespace mixpl::cuda
