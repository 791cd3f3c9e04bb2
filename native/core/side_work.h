// A GPU's second stream: work beside the rest of what the device has to do.
#pragma once

#include <mutex>

#include "core/device.h"

namespace mixpl {

/// While it lives, what this thread gives to `device` is work beside the rest: behind all that the
/// device was given before, and in no order with what it is given by others, and after this has
/// ended, until join_side_work(). Tensors that are read beside must not be written before the join;
/// those that were made beside are there for the others after it. Memory may go back at any time.
/// Nothing but a scope on the CPU, on an emulated device and with MIXPL_CUDA_STREAMS=1.
/// @throws StateError inside another one of the same thread
class SideWork {
 public:
  explicit SideWork(Device device);
  ~SideWork();
  SideWork(const SideWork&) = delete;
  SideWork& operator=(const SideWork&) = delete;

 private:
  const Device device_;
  std::unique_lock<std::mutex> lock_;  // held: this is more than a scope
};

/// What the device is given from now on waits for all work beside. Costs nothing when there is
/// none.
void join_side_work(Device device);

}  // namespace mixpl
