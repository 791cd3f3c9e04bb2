// Memory while a device has work in two streams, for core/side_work.cpp. They must not use a block
// at the same time, so each has blocks of its own; and what goes back is kept from use where the
// other stream may not be done with it.
#pragma once

#include "core/device.h"

namespace mixpl {

/// Until leave_side_memory() this thread takes memory for the device's side stream, which waits for
/// all that was given to the device before.
void fork_memory(Device device);
void leave_side_memory();
/// The device's other work waits for its side stream from now on.
void join_memory(Device device);

}  // namespace mixpl
