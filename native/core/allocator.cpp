#include "core/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/fence.h"
#include "core/free_blocks.h"
#include "core/side_memory.h"

namespace mixpl {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCutsSegments = false;  // it knows where segments end, not blocks
#else
constexpr bool kCutsSegments = true;
#endif

class SystemMemory final : public MemorySource {
 public:
  void* allocate(int64_t size) override {
    constexpr int64_t kAlignment = 64, kHugePage = 2 << 20;
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
  /// @param cuts  see FreeBlocks
  /// @param trims gives unused blocks back before memory runs out
  Pool(MemorySource& source, bool cuts, bool trims)
      : source_(source), trims_(trims), free_{FreeBlocks(cuts), FreeBlocks(cuts)} {}

  Block* take(int64_t bytes, Home& home) {
    std::lock_guard lock(mutex_);
    home = {side_pool == this, forks_};
    Block* block = take_locked(bytes, free_[home.side]);
    stats_.live_bytes += block->size;
    stats_.peak_live_bytes = std::max(stats_.peak_live_bytes, stats_.live_bytes);
    source_.on_take(block->at, bytes, block->size);
    return block;
  }

  void give_back(Block* block, Home home) {
    std::lock_guard lock(mutex_);
    stats_.live_bytes -= block->size;
    stats_.cached_bytes += block->size;
    source_.on_give_back(block->at, block->size);
    // A side stream's block may be read by the other until the next fork, which waits for that. Of
    // the others the side stream may read those that were there at the fork, until the join.
    const bool held = home.side ? side_pool != this : is_open_ && home.forks < forks_;
    if (held)
      held_[home.side].push_back(block);
    else
      free_[home.side].give_back(block);
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
  Block* take_locked(int64_t bytes, FreeBlocks& blocks) {
    const int64_t size = blocks.block_size(bytes);
    if (Block* block = blocks.take(size)) {
      stats_.cached_bytes -= block->size;
      return block;
    }
    // Shapes that vary from step to step must not pile up: what is cached stays below what is in
    // use. Not so on a GPU, where freeing waits for all work: there it is done when memory is out.
    if (trims_ && stats_.cached_bytes > std::max<int64_t>(stats_.peak_live_bytes / 2, 64 << 20))
      release_locked();
    int64_t segment_size = blocks.segment_size(size);
    void* segment = source_.allocate(segment_size);
    if (!segment) {
      release_locked();
      segment_size = size;  // no more than is needed
      segment = source_.allocate(segment_size);
    }
    if (!segment)
      throw OutOfMemoryError(str("out of memory: wanted ", size, " bytes on ", source_.describe(),
                                 "; tensors hold ", stats_.live_bytes));
    ++stats_.system_allocations;
    Block* block = blocks.take_of(segment, segment_size, size);
    stats_.cached_bytes += segment_size - block->size;
    return block;
  }
  void free_held(bool side) {
    for (Block* block : held_[side]) free_[side].give_back(block);
    held_[side].clear();
  }
  // A GPU frees memory when all of its work is done: those that are held, too.
  void release_locked() {
    for (const bool side : {false, true}) {
      free_held(side);
      free_[side].release([&](void* segment, int64_t bytes) {
        stats_.cached_bytes -= bytes;
        source_.free(segment, bytes);
      });
    }
  }

  MemorySource& source_;
  const bool trims_;
  std::mutex mutex_;
  // [1]: of the side stream.
  FreeBlocks free_[2];
  std::vector<Block*> held_[2];
  int64_t forks_ = 0;
  bool is_open_ = false;  // between a fork and its join
  MemoryStats stats_;
};

// Never destroyed: tensors held by JavaScript may outlive static destructors.
Pool& pool_of(Device device) {
  static Pool* cpu = new Pool(*new SystemMemory, kCutsSegments, true);
  if (device.is_cpu()) return *cpu;
  static std::mutex mutex;
  static auto* gpus = new std::vector<std::unique_ptr<Pool>>;
  std::lock_guard lock(mutex);
  if (gpus->size() <= static_cast<size_t>(device.index)) gpus->resize(device.index + 1);
  std::unique_ptr<Pool>& pool = (*gpus)[device.index];
  if (!pool) pool = std::make_unique<Pool>(cuda::memory_source(device.index), false, false);
  return *pool;
}

}  // namespace

std::shared_ptr<void> allocate(int64_t bytes, Device device) {
  Pool& pool = pool_of(device);
  const bool fenced = device.is_cpu() && fence::is_wanted();
  bytes = std::max<int64_t>(bytes, 1);
  Home home;
  Block* block = pool.take(bytes + (fenced ? 2 * fence::kBytes : 0), home);
  if (!fenced)
    return std::shared_ptr<void>(block->at,
                                 [&pool, block, home](void*) { pool.give_back(block, home); });
  char* inside = block->at + fence::kBytes;
  fence::build(inside, bytes);
  return std::shared_ptr<void>(inside, [&pool, block, home, inside, bytes](void*) {
    fence::check(inside, bytes);
    pool.give_back(block, home);
  });
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
