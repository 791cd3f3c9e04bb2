#include "core/cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "core/cuda/error.h"
#include "core/error.h"

namespace mixpl::cuda {
namespace {
constexpr size_t kSmallestBlock = 64 << 10, kLargestBlock = 64 << 20;
constexpr size_t kMostPinned = 256 << 20;
}  // namespace

PinnedBlock::PinnedBlock(size_t bytes) : bytes(bytes) {
  MIXPL_CUDA(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
  const cudaError_t error = cudaMallocHost(&memory, bytes);
  if (error == cudaSuccess) return;
  cudaEventDestroy(copied);
  if (error != cudaErrorMemoryAllocation) MIXPL_CUDA(error);
  cudaGetLastError();
  throw OutOfMemoryError(
      str("out of memory: wanted ", bytes, " bytes of host memory that a GPU can copy from"));
}
PinnedBlock::~PinnedBlock() {
  cudaFreeHost(memory);
  cudaEventDestroy(copied);
}

bool PinnedBlock::is_past() const {
  const cudaError_t error = cudaEventQuery(copied);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();  // no error, but the next launch would be told of it
    return false;
  }
  MIXPL_CUDA(error);
  return true;
}
void PinnedBlock::wait() const {
  count_synchronisation();
  MIXPL_CUDA(cudaEventSynchronize(copied));
}

void Staging::copy(void* device, const void* host, size_t bytes, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  for (size_t at = 0; at < bytes;) {
    const size_t piece = std::min(bytes - at, kLargestBlock);
    PinnedBlock& block = take(piece);
    char* const pinned = static_cast<char*>(block.memory);
    threads_.copy(
        pinned, static_cast<const char*>(host) + at, piece, [&](size_t begin, size_t end) {
          MIXPL_CUDA(cudaMemcpyAsync(static_cast<char*>(device) + at + begin, pinned + begin,
                                     end - begin, cudaMemcpyHostToDevice, stream));
        });
    MIXPL_CUDA(cudaEventRecord(block.copied, stream));
    at += piece;
  }
}

PinnedBlock& Staging::take(size_t bytes) {
  for (const auto& b : blocks_)
    if (b->bytes >= bytes && b->bytes <= 8 * std::max(bytes, kSmallestBlock) && b->is_past())
      return *b;
  size_t size = kSmallestBlock;
  while (size < bytes) size *= 2;
  if (total_ + size <= kMostPinned) return add(size);
  // Enough is pinned: the next large enough one in turn is waited for; without one, the next in
  // turn makes room.
  for (size_t i = 0; i < blocks_.size(); ++i) {
    PinnedBlock& b = *blocks_[next_++ % blocks_.size()];
    if (b.bytes < bytes) continue;
    b.wait();
    return b;
  }
  const size_t at = next_++ % blocks_.size();
  blocks_[at]->wait();
  total_ -= blocks_[at]->bytes;
  blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(at));
  return add(size);
}

PinnedBlock& Staging::add(size_t bytes) {
  blocks_.push_back(std::make_unique<PinnedBlock>(bytes));
  total_ += bytes;
  return *blocks_.back();
}

}  // namespace mixpl::cuda
