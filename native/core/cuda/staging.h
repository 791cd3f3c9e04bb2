// Pinned host memory through which values go to a GPU: a copy from ordinary memory would wait for
// all that the stream has still to do.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <mutex>
#include <vector>

namespace mixpl::cuda {

/// Counts a wait in synchronisations().
void count_synchronisation();

/// Whether the stream has got to `event`. @throws DeviceError
bool is_past(cudaEvent_t event);

class Staging {
 public:
  /// Returns when `host` was read; the stream carries the rest.
  void copy(void* device, const void* host, size_t bytes, cudaStream_t stream);

 private:
  struct Buffer {
    void* memory;
    size_t bytes;
    cudaEvent_t read;  // behind the last copy out of it
  };
  Buffer& take(size_t bytes);

  std::mutex mutex_;
  std::vector<Buffer> buffers_;
  size_t total_ = 0, next_ = 0;
};

}  // namespace mixpl::cuda
