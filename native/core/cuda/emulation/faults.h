// Faults that a test injects: see core/cuda/emulation_settings.h.
#pragma once

#include <cstdint>
#include <source_location>

namespace mixpl::cuda::emulation {

/// @throws DeviceError once the device is lost, naming `call`
void require_device(const char* call);
/// Counts a launch. @throws DeviceError when it is the one that fails, or finds the device lost
void before_launch(const std::source_location& where);
/// Size of the device's memory, at most `whole`.
int64_t memory_limit(int64_t whole);

}  // namespace mixpl::cuda::emulation
