// For tests, from the binding: what an emulated device does differently from now on.
#pragma once

#include <cstdint>

namespace mixpl::cuda {

/// @param order_seed of the order of blocks and threads, 0: one after another
/// @param poison     the byte that fills fresh memory
/// @throws DeviceError where nothing is emulated
void set_emulation(uint64_t order_seed, int poison);

/// What goes wrong on the emulated device.
struct EmulatedFaults {
  int64_t memory_bytes = -1;      // how large its memory is; -1: as large as ever
  int64_t launches_to_fail = -1;  // after so many launches one fails; -1: none does
  int64_t launches_to_loss = -1;  // after so many launches the device answers no call any more
};
/// Replaces what went wrong before; a lost device is back. @throws DeviceError where nothing is
/// emulated
void set_emulated_faults(const EmulatedFaults& faults);

}  // namespace mixpl::cuda
