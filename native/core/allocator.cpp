#include "core/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/error.h"

namespace mixpl {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kHugePage = 2 << 20;

// Sizes are rounded up to eight steps per power of two, so that similar shapes share blocks and at
// most an eighth is wasted.
int64_t rounded_size(int64_t bytes) {
  if (bytes <= 1024) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  int64_t step = kAlignment;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

class SystemMemory final : public MemorySource {
 public:
  void* allocate(int64_t size) override {
    const bool large = size >= 2 * kHugePage;
    const int64_t alignment = large ? kHugePage : kAlignment;
    void* block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block && large) madvise(block, size, MADV_HUGEPAGE);
    return block;
  }
  void free(void* block, int64_t) override { std::free(block); }
  std::string describe() const override { return "cpu"; }
};

class Pool {
 public:
  /// @param trims gives unused blocks back before memory runs out
  Pool(MemorySource& source, bool trims) : source_(source), trims_(trims) {}

  void* take(int64_t bytes, int64_t& actual) {
    const int64_t size = rounded_size(bytes);
    std::lock_guard lock(mutex_);
    // Best fit; a block may serve a request down to two thirds of its size.
    auto found = free_.lower_bound(size);
    if (found != free_.end() && found->first <= size + size / 2) {
      void* block = found->second;
      actual = found->first;
      stats_.cached_bytes -= actual;
      free_.erase(found);
      note_live(actual);
      source_.on_take(block, bytes, actual);
      return block;
    }
    // Shapes that vary from step to step must not pile up: what is cached stays below what is in
    // use. Not so on a GPU, where freeing waits for all work: there it is done when memory is out.
    if (trims_ && stats_.cached_bytes > std::max<int64_t>(stats_.peak_live_bytes / 2, 64 << 20))
      release_locked();
    actual = size;
    void* block = source_.allocate(size);
    if (!block) {
      release_locked();
      block = source_.allocate(size);
    }
    if (!block)
      throw OutOfMemoryError(str("out of memory: wanted ", size, " bytes on ", source_.describe(),
                                 "; tensors hold ", stats_.live_bytes));
    ++stats_.system_allocations;
    note_live(size);
    source_.on_take(block, bytes, size);
    return block;
  }

  void give_back(void* block, int64_t size) {
    std::lock_guard lock(mutex_);
    stats_.live_bytes -= size;
    stats_.cached_bytes += size;
    source_.on_give_back(block, size);
    free_.emplace(size, block);
  }

  void release() {
    std::lock_guard lock(mutex_);
    release_locked();
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_live_bytes = stats_.live_bytes;
  }

 private:
  void release_locked() {
    for (auto& [size, block] : free_) source_.free(block, size);
    free_.clear();
    stats_.cached_bytes = 0;
  }
  void note_live(int64_t size) {
    stats_.live_bytes += size;
    stats_.peak_live_bytes = std::max(stats_.peak_live_bytes, stats_.live_bytes);
  }

  MemorySource& source_;
  const bool trims_;
  std::mutex mutex_;
  std::multimap<int64_t, void*> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors held by JavaScript may outlive static destructors.
Pool& pool_of(Device device) {
  static Pool* cpu = new Pool(*new SystemMemory, true);
  if (device.is_cpu()) return *cpu;
  static std::mutex mutex;
  static auto* gpus = new std::vector<std::unique_ptr<Pool>>;
  std::lock_guard lock(mutex);
  if (gpus->size() <= static_cast<size_t>(device.index)) gpus->resize(device.index + 1);
  std::unique_ptr<Pool>& pool = (*gpus)[device.index];
  if (!pool) pool = std::make_unique<Pool>(cuda::memory_source(device.index), false);
  return *pool;
}

}  // namespace

std::shared_ptr<void> allocate(int64_t bytes, Device device) {
  Pool& pool = pool_of(device);
  int64_t size = 0;
  void* block = pool.take(std::max<int64_t>(bytes, 1), size);
  return std::shared_ptr<void>(block, [&pool, size](void* p) { pool.give_back(p, size); });
}

MemoryStats memory_stats(Device device) {
  MemoryStats stats = pool_of(device).stats();
  stats.synchronisations = cuda::synchronisations();
  return stats;
}
void reset_peak_memory(Device device) { pool_of(device).reset_peak(); }
void release_cached_memory(Device device) { pool_of(device).release(); }

}  // namespace mixpl
