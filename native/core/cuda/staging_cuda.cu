#include "core/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/cuda/error.h"

namespace mixpl::cuda {
namespace {
constexpr size_t kSmallestBuffer = 64 << 10, kLargestBuffer = 64 << 20;
constexpr size_t kMostPinned = 256 << 20;
}  // namespace

bool is_past(cudaEvent_t event) {
  const cudaError_t error = cudaEventQuery(event);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();  // no error, but the next launch would be told of it
    return false;
  }
  MIXPL_CUDA(error);
  return true;
}

void Staging::copy(void* device, const void* host, size_t bytes, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  for (size_t at = 0; at < bytes;) {
    const size_t piece = std::min(bytes - at, kLargestBuffer);
    Buffer& buffer = take(piece);
    std::memcpy(buffer.memory, static_cast<const char*>(host) + at, piece);
    MIXPL_CUDA(cudaMemcpyAsync(static_cast<char*>(device) + at, buffer.memory, piece,
                               cudaMemcpyHostToDevice, stream));
    MIXPL_CUDA(cudaEventRecord(buffer.read, stream));
    at += piece;
  }
}

Staging::Buffer& Staging::take(size_t bytes) {
  for (Buffer& b : buffers_)
    if (b.bytes >= bytes && b.bytes <= 8 * std::max(bytes, kSmallestBuffer) && is_past(b.read))
      return b;
  size_t size = kSmallestBuffer;
  while (size < bytes) size *= 2;
  if (total_ + size <= kMostPinned) {
    Buffer b{nullptr, size, nullptr};
    MIXPL_CUDA(cudaMallocHost(&b.memory, size));
    MIXPL_CUDA(cudaEventCreateWithFlags(&b.read, cudaEventDisableTiming));
    total_ += size;
    buffers_.push_back(b);
    return buffers_.back();
  }
  // Enough is pinned: the next large enough one in turn is waited for; without one, its neighbour
  // grows.
  for (size_t i = 0; i < buffers_.size(); ++i) {
    Buffer& b = buffers_[next_++ % buffers_.size()];
    if (b.bytes < bytes) continue;
    count_synchronisation();
    MIXPL_CUDA(cudaEventSynchronize(b.read));
    return b;
  }
  Buffer& b = buffers_[next_++ % buffers_.size()];
  count_synchronisation();
  MIXPL_CUDA(cudaEventSynchronize(b.read));
  MIXPL_CUDA(cudaFreeHost(b.memory));
  total_ -= b.bytes;
  b.memory = nullptr;  // freed once, even when there is no other
  b.bytes = 0;
  MIXPL_CUDA(cudaMallocHost(&b.memory, size));
  b.bytes = size;
  total_ += size;
  return b;
}

}  // namespace mixpl::cuda
