#include "core/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/side_memory.h"

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

/// Whose a block is, and since when.
struct Home {
  bool side = false;
  int64_t forks = 0;  // that there were when it was taken
};

class Pool;
thread_local Pool* side_pool = nullptr;  // whose side stream this thread works for

class Pool {
 public:
  /// @param trims gives unused blocks back before memory runs out
  Pool(MemorySource& source, bool trims) : source_(source), trims_(trims) {}

  void* take(int64_t bytes, int64_t& actual, Home& home) {
    const int64_t size = rounded_size(bytes);
    std::lock_guard lock(mutex_);
    home = {side_pool == this, forks_};
    // Best fit; a block may serve a request down to two thirds of its size.
    auto& free = free_[home.side];
    auto found = free.lower_bound(size);
    if (found != free.end() && found->first <= size + size / 2) {
      void* block = found->second;
      actual = found->first;
      stats_.cached_bytes -= actual;
      free.erase(found);
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

  void give_back(void* block, int64_t size, Home home) {
    std::lock_guard lock(mutex_);
    stats_.live_bytes -= size;
    stats_.cached_bytes += size;
    source_.on_give_back(block, size);
    // A side stream's block may be read by the other until the next fork, which waits for that. Of
    // the others the side stream may read those that were there at the fork, until the join.
    const bool held = home.side ? side_pool != this : is_open_ && home.forks < forks_;
    if (held)
      held_[home.side].emplace_back(size, block);
    else
      free_[home.side].emplace(size, block);
  }

  void fork() {
    std::lock_guard lock(mutex_);
    free_held(true);
    ++forks_;
    is_open_ = true;
    side_pool = this;
  }
  void join() {
    std::lock_guard lock(mutex_);
    free_held(false);
    is_open_ = false;
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
  void free_held(bool side) {
    free_[side].insert(held_[side].begin(), held_[side].end());
    held_[side].clear();
  }
  // A GPU frees memory when all of its work is done: those that are held, too.
  void release_locked() {
    for (const bool side : {false, true}) {
      free_held(side);
      for (auto& [size, block] : free_[side]) source_.free(block, size);
      free_[side].clear();
    }
    stats_.cached_bytes = 0;
  }
  void note_live(int64_t size) {
    stats_.live_bytes += size;
    stats_.peak_live_bytes = std::max(stats_.peak_live_bytes, stats_.live_bytes);
  }

  MemorySource& source_;
  const bool trims_;
  std::mutex mutex_;
  // [1]: of the side stream.
  std::multimap<int64_t, void*> free_[2];
  std::vector<std::pair<int64_t, void*>> held_[2];
  int64_t forks_ = 0;
  bool is_open_ = false;  // between a fork and its join
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
  Home home;
  void* block = pool.take(std::max<int64_t>(bytes, 1), size, home);
  return std::shared_ptr<void>(block,
                               [&pool, size, home](void* p) { pool.give_back(p, size, home); });
}

MemoryStats memory_stats(Device device) {
  MemoryStats stats = pool_of(device).stats();
  stats.synchronisations = cuda::synchronisations();
  return stats;
}
void reset_peak_memory(Device device) { pool_of(device).reset_peak(); }
void release_cached_memory(Device device) { pool_of(device).release(); }

void fork_memory(Device device) { pool_of(device).fork(); }
void leave_side_memory() { side_pool = nullptr; }
void join_memory(Device device) { pool_of(device).join(); }

}  // namespace mixpl
