// Pinned host memory through which values go to a GPU: a copy from ordinary memory would wait for
// all that the stream has still to do.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "core/copy_threads.h"

namespace mixpl::cuda {

/// Counts a wait in synchronisations().
void count_synchronisation();

/// Where work of this thread for the current device goes.
cudaStream_t stream_now();

/// Host memory that a GPU copies from and to by itself, and how far the device is with it.
struct PinnedBlock {
  /// For the current device. @throws OutOfMemoryError with the size wanted, DeviceError
  explicit PinnedBlock(size_t bytes);
  ~PinnedBlock();
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;

  /// Whether the stream has got to `copied`. @throws DeviceError
  bool is_past() const;
  /// Waits until it has. @throws DeviceError
  void wait() const;

  void* memory = nullptr;
  const size_t bytes;
  cudaEvent_t copied = nullptr;  // behind the last copy
};

class Staging {
 public:
  /// Returns when `host` was read; the stream carries what is there meanwhile, and then the rest.
  void copy(void* device, const void* host, size_t bytes, cudaStream_t stream);

 private:
  PinnedBlock& take(size_t bytes);
  PinnedBlock& add(size_t bytes);

  std::mutex mutex_;
  CopyThreads threads_;
  std::vector<std::unique_ptr<PinnedBlock>> blocks_;
  size_t total_ = 0, next_ = 0;
};

}  // namespace mixpl::cuda
