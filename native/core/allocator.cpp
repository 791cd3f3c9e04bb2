#include "core/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

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

class Pool {
 public:
  void* take(int64_t size, int64_t& actual) {
    std::lock_guard lock(mutex_);
    // Best fit; a block may serve a request down to two thirds of its size.
    auto found = free_.lower_bound(size);
    if (found != free_.end() && found->first <= size + size / 2) {
      void* block = found->second;
      actual = found->first;
      stats_.cached_bytes -= actual;
      free_.erase(found);
      note_live(actual);
      return block;
    }
    // Shapes that vary from step to step must not pile up: what is cached stays below what is in
    // use.
    if (stats_.cached_bytes > std::max<int64_t>(stats_.peak_live_bytes / 2, 64 << 20))
      release_locked();
    actual = size;
    void* block = system_allocate(size);
    if (!block) {
      release_locked();
      block = system_allocate(size);
    }
    if (!block)
      throw OutOfMemoryError(str("allocate: the system refused ", size, " bytes; in use ",
                                 stats_.live_bytes, " bytes on cpu"));
    ++stats_.system_allocations;
    note_live(size);
    return block;
  }

  void give_back(void* block, int64_t size) {
    std::lock_guard lock(mutex_);
    stats_.live_bytes -= size;
    stats_.cached_bytes += size;
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
  static void* system_allocate(int64_t size) {
    const bool large = size >= 2 * kHugePage;
    const int64_t alignment = large ? kHugePage : kAlignment;
    void* block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block && large) madvise(block, size, MADV_HUGEPAGE);
    return block;
  }
  void release_locked() {
    for (auto& [size, block] : free_) std::free(block);
    free_.clear();
    stats_.cached_bytes = 0;
  }
  void note_live(int64_t size) {
    stats_.live_bytes += size;
    stats_.peak_live_bytes = std::max(stats_.peak_live_bytes, stats_.live_bytes);
  }

  std::mutex mutex_;
  std::multimap<int64_t, void*> free_;
  MemoryStats stats_;
};

// Never destroyed: tensors held by JavaScript may outlive static destructors.
Pool& cpu_pool() {
  static Pool* pool = new Pool;
  return *pool;
}

}  // namespace

std::shared_ptr<void> allocate(int64_t bytes, Device) {
  int64_t size = 0;
  void* block = cpu_pool().take(rounded_size(std::max<int64_t>(bytes, 1)), size);
  return std::shared_ptr<void>(block, [size](void* p) { cpu_pool().give_back(p, size); });
}

MemoryStats memory_stats(Device) { return cpu_pool().stats(); }
void reset_peak_memory(Device) { cpu_pool().reset_peak(); }
void release_cached_memory(Device) { cpu_pool().release(); }

}  // namespace mixpl
