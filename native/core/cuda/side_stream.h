// A second stream of the current device, for core/side_work.cpp, which is what others use. Its
// blocks go first where multiprocessors are free. It has three implementations, as runtime.h has.
#pragma once

namespace mixpl::cuda {

/// Whether there is one: on GPUs, unless MIXPL_CUDA_STREAMS is 1.
bool has_side_stream();
/// It waits for what the device was given so far, and this thread's work goes there.
/// @throws DeviceError
void enter_side_stream();
void leave_side_stream();
/// The other stream waits for what the side stream was given so far. @throws DeviceError
void join_side_stream();

}  // namespace mixpl::cuda
