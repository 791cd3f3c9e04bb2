// Sums over the processes of a training, each with a device of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace mixpl {

class Collective {
 public:
  virtual ~Collective() = default;
  /// What the other processes need of this one; "" where rank 0 says it all.
  virtual std::string address() const = 0;
  /// All of them call it, and wait for each other. @param addresses by rank
  /// @throws StateError
  virtual void connect(const std::vector<std::string>& addresses) = 0;
  /// f32 values on the device become their sums, the same bits in every process. All of them call
  /// it for as many values. A GPU's stream may be all that waits: after abort() the values are any,
  /// which whoever calls the others next is told.
  /// @throws StateError when another process has gone
  virtual void sum(Tensor& values) = 0;
  /// Ends what is under way, which throws then or leaves any values; from any thread.
  virtual void abort() = 0;
};

/// Where a process has its place.
struct CollectivePlace {
  int rank = 0, processes = 1;
  Device device;
  std::string host;  // an address of this machine that the others reach
};

/// Through the host's memory and TCP, by Gloo: for every device.
/// @throws StateError when the plug-in or a library of it is missing
std::unique_ptr<Collective> open_gloo(const CollectivePlace& place);
/// From GPU to GPU, by NCCL; a GPU for each process.
/// @throws StateError when there is no libnccl.so.2
std::unique_ptr<Collective> open_nccl(const CollectivePlace& place);
/// Whether open_gloo() and open_nccl() would find their libraries.
bool has_gloo();
bool has_nccl();

}  // namespace mixpl
