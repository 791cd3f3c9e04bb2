// Copies to the host that are under way, and events: what waits for a point of a stream.
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda/error.h"
#include "core/cuda/runtime.h"
#include "core/cuda/staging.h"

namespace mixpl::cuda {
namespace {

struct Lent : PinnedBlock {
  explicit Lent(size_t bytes) : PinnedBlock(bytes), device(current_device()) {}
  const int device;  // of the event
};

// Blocks that nobody reads; the copy into one may still be under way. Never freed: they are few and
// small.
std::mutex idle_mutex;
std::vector<Lent*>& idle_blocks() {
  static auto* blocks = new std::vector<Lent*>;
  return *blocks;
}

void give_back(Lent* block) {
  std::lock_guard lock(idle_mutex);
  idle_blocks().push_back(block);
}
using Lease = std::unique_ptr<Lent, void (*)(Lent*)>;

Lease lend(size_t bytes) {
  std::lock_guard lock(idle_mutex);
  std::vector<Lent*>& idle = idle_blocks();
  for (size_t i = 0; i < idle.size(); ++i) {
    Lent* block = idle[i];
    if (block->device != current_device() || block->bytes < bytes || !block->is_past()) continue;
    idle.erase(idle.begin() + static_cast<std::ptrdiff_t>(i));
    return {block, give_back};
  }
  size_t size = 16 << 10;
  while (size < bytes) size *= 2;
  return {new Lent(size), give_back};
}

}  // namespace

Readback::Readback(const void* device, size_t bytes) {
  const cudaStream_t stream = stream_now();
  Lease block = lend(bytes);
  if (bytes)
    MIXPL_CUDA(cudaMemcpyAsync(block->memory, device, bytes, cudaMemcpyDeviceToHost, stream));
  MIXPL_CUDA(cudaEventRecord(block->copied, stream));
  handle_ = block.release();
}
Readback::~Readback() { give_back(static_cast<Lent*>(handle_)); }
const void* Readback::wait() {
  const auto* block = static_cast<Lent*>(handle_);
  block->wait();
  return block->memory;
}

Event::Event() {
  stream_now();  // makes the device that it belongs to this thread's
  cudaEvent_t event;
  MIXPL_CUDA(cudaEventCreate(&event));
  handle_ = event;
}
Event::~Event() { cudaEventDestroy(static_cast<cudaEvent_t>(handle_)); }
void Event::record() {
  MIXPL_CUDA(cudaEventRecord(static_cast<cudaEvent_t>(handle_), stream_now()));
}
double Event::ms_since(const Event& start) const {
  count_synchronisation();
  MIXPL_CUDA(cudaEventSynchronize(static_cast<cudaEvent_t>(handle_)));
  float ms = 0;
  MIXPL_CUDA(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(start.handle_),
                                  static_cast<cudaEvent_t>(handle_)));
  return ms;
}

}  // namespace mixpl::cuda
