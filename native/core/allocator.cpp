#include "core/allocator.h"

#include <cstdlib>
#include <mutex>
#include <vector>

#include "core/cuda/runtime.h"
#include "core/cut_blocks.h"
#include "core/error.h"
#include "core/fence.h"
#include "core/side_memory.h"
#include "core/whole_blocks.h"

namespace mixpl {
namespace {

// The address sanitizer knows where memory ends that the system gave, not where a part of it does.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCutsBlocks = false;
#else
constexpr bool kCutsBlocks = true;
#endif

// Of blocks that are not cut.
class HostMemory final : public MemorySource {
 public:
  void* allocate(int64_t size) override { return std::aligned_alloc(64, rounded_up(size, 64)); }
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
  /// @param cuts  takes the host's memory and cuts it
  /// @param trims gives unused blocks back before memory runs out
  Pool(MemorySource& source, bool cuts, bool trims) : source_(source), trims_(trims) {
    for (std::unique_ptr<Blocks>& blocks : blocks_)
      if (cuts)
        blocks = std::make_unique<CutBlocks>();
      else
        blocks = std::make_unique<WholeBlocks>(source);
  }

  Block* take(int64_t bytes, Home& home) {
    std::lock_guard lock(mutex_);
    home = {side_pool == this, forks_};
    Block* block = take_locked(bytes, *blocks_[home.side]);
    live_bytes_ += block->size;
    peak_live_bytes_ = std::max(peak_live_bytes_, live_bytes_);
    source_.on_take(block->at, bytes, block->size);
    return block;
  }

  void give_back(Block* block, Home home) {
    std::lock_guard lock(mutex_);
    live_bytes_ -= block->size;
    source_.on_give_back(block->at, block->size);
    // A side stream's block may be read by the other until the next fork, which waits for that. Of
    // the others the side stream may read those that were there at the fork, until the join.
    const bool held = home.side ? side_pool != this : is_open_ && home.forks < forks_;
    if (held) {
      held_[home.side].push_back(block);
      held_bytes_ += block->size;
    } else {
      blocks_[home.side]->give_back(block);
    }
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
    MemoryStats stats;
    stats.live_bytes = live_bytes_;
    stats.peak_live_bytes = peak_live_bytes_;
    stats.cached_bytes = cached_bytes();
    for (const auto& blocks : blocks_) stats.system_allocations += blocks->system_allocations();
    return stats;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    peak_live_bytes_ = live_bytes_;
  }

 private:
  int64_t cached_bytes() const {
    return blocks_[0]->cached_bytes() + blocks_[1]->cached_bytes() + held_bytes_;
  }
  Block* take_locked(int64_t bytes, Blocks& blocks) {
    if (Block* block = blocks.take(bytes)) return block;
    // Shapes that vary from step to step must not pile up: what is cached stays below what is in
    // use. Not so on a GPU, where freeing waits for all work: there it is done when memory is out.
    if (trims_ && cached_bytes() > std::max<int64_t>(peak_live_bytes_ / 2, 64 << 20))
      release_locked();
    Block* block = blocks.get(bytes);
    if (!block) {
      release_locked();
      block = blocks.get(bytes);
    }
    if (!block)
      throw OutOfMemoryError(str("out of memory: wanted ", bytes, " bytes on ", source_.describe(),
                                 "; tensors hold ", live_bytes_));
    return block;
  }
  void free_held(bool side) {
    for (Block* block : held_[side]) {
      held_bytes_ -= block->size;
      blocks_[side]->give_back(block);
    }
    held_[side].clear();
  }
  // A GPU frees memory when all of its work is done: those that are held, too.
  void release_locked() {
    for (const bool side : {false, true}) {
      free_held(side);
      blocks_[side]->release();
    }
  }

  MemorySource& source_;
  const bool trims_;
  std::mutex mutex_;
  std::unique_ptr<Blocks> blocks_[2];  // [1]: of the side stream
  std::vector<Block*> held_[2];
  int64_t held_bytes_ = 0, live_bytes_ = 0, peak_live_bytes_ = 0;
  int64_t forks_ = 0;
  bool is_open_ = false;  // between a fork and its join
};

// Never destroyed: tensors held by JavaScript may outlive static destructors.
Pool& pool_of(Device device) {
  static Pool* cpu = new Pool(*new HostMemory, kCutsBlocks, true);
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
