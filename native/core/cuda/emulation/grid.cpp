#include "core/cuda/emulation/grid.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda/emulation/coverage.h"
#include "core/cuda/emulation/device_memory.h"
#include "core/cuda/emulation/faults.h"
#include "core/cuda/emulation/fiber.h"
#include "core/cuda/emulation/shared_memory.h"
#include "core/error.h"

namespace mixpl::cuda {

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

struct Copy {
  void* to;
  const void* from;
  int bytes, valid_bytes;
  int group;
};

enum class State : uint8_t { fresh, ready, at_barrier, at_meeting, gone };

struct Thread {
  dim3 index;
  int linear = 0;
  State state = State::fresh;
  Fiber* fiber = nullptr;
  const char* operation = "";  // what it waits at, and where
  std::source_location where;
  std::vector<Copy> copies;
  int copy_group = 0;
  bool unfenced = false;  // copies that wgmma does not see yet
  std::vector<WarpgroupProduct> products;
  int product_group = 0;
};

// Lanes of a warp that wait for others at one operation.
struct Gathering {
  const char* operation;
  uint32_t mask, arrived;
  std::source_location where;
  void (*exchange)(Meeting&);
};

struct Warp {
  uint32_t live = 0;
  std::vector<Gathering> gatherings;
  LaneData lanes[kWarpSize];
};

std::string place(const std::source_location& where) {
  const std::string file = where.file_name();
  return str(file.substr(file.rfind('/') + 1), ":", where.line());
}
bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && same(a.file_name(), b.file_name());
}
std::string text(const dim3& v) { return str("(", v.x, ", ", v.y, ", ", v.z, ")"); }

// splitmix64
struct Shuffler {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  template <typename T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[next() % i]);
  }
};

// Fibers outlive launches: making a stack costs more than most kernels.
class FiberPool {
 public:
  Fiber* take(Fiber::Main main) {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Fiber>());
      all_.back()->reset(main);
      return all_.back().get();
    }
    Fiber* fiber = free_.back();
    free_.pop_back();
    return fiber;
  }
  void give_back(Fiber* fiber) { free_.push_back(fiber); }

 private:
  std::vector<std::unique_ptr<Fiber>> all_;
  std::vector<Fiber*> free_;
};

FiberPool& fibers() {
  static auto* pool = new FiberPool;
  return *pool;
}

// One launch. The emulated device runs one at a time, as one stream does.
class Grid {
 public:
  Grid(const std::source_location& where, dim3 block, size_t dynamic_shared, Body body)
      : where_(where),
        body_(body),
        threads_(block.x * block.y * block.z),
        warps_((threads_.size() + kWarpSize - 1) / kWarpSize),
        shared_(dynamic_shared) {
    for (size_t i = 0; i < threads_.size(); ++i) {
      threads_[i].linear = static_cast<int>(i);
      threads_[i].index = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y);
      order_.push_back(&threads_[i]);
    }
  }

  void run_block(uint64_t seed);

  // On fibers.
  static void fiber_main();
  void wait_for_block(const std::source_location& where);
  void meet(const char* operation, uint32_t mask, const std::source_location& where, LaneData& data,
            void (*exchange)(Meeting&));
  Thread& running() { return *running_; }
  /// A thread whose copies wgmma does not see, or null.
  const Thread* unfenced() const {
    const auto found =
        std::find_if(threads_.begin(), threads_.end(), [](const Thread& t) { return t.unfenced; });
    return found == threads_.end() ? nullptr : &*found;
  }
  int threads() const { return static_cast<int>(threads_.size()); }
  SharedMemory& shared() { return shared_; }
  std::string position() const {
    return str(where_.function_name(), " (", place(where_), "): block ", text(blockIdx),
               running_ ? str(", thread ", text(running_->index)) : "");
  }

 private:
  void start(Thread* thread);
  void resume(Thread* thread);
  void suspend(State state, const char* operation, const std::source_location& where);
  void thread_ends();
  void finish_gathering(Warp& warp, size_t index);
  void make_ready(std::vector<Thread*>& released);
  void abandon();
  [[noreturn]] void report_deadlock();

  std::source_location where_;
  Body body_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  SharedMemory shared_;

  std::vector<Thread*> order_;
  Shuffler shuffler_{0};
  bool shuffled_ = false;
  size_t started_ = 0, gone_ = 0;
  std::deque<Thread*> ready_;
  std::vector<Thread*> at_barrier_;
  std::vector<Thread*> met_;  // lanes that an exchange releases
  Thread* running_ = nullptr;
  Fiber* fiber_ = nullptr;
  std::exception_ptr error_;
};

Grid* active = nullptr;

// --- the scheduler, on the launching thread's stack

void Grid::run_block(uint64_t seed) {
  shuffler_ = {seed};
  shuffled_ = seed != 0;
  for (size_t i = 0; i < order_.size(); ++i) order_[i] = &threads_[i];
  if (shuffled_) shuffler_.shuffle(order_);
  for (Thread& t : threads_) {
    t.state = State::fresh;
    t.copies.clear();
    t.products.clear();
    t.unfenced = false;
  }
  for (size_t w = 0; w < warps_.size(); ++w) {
    const size_t lanes = std::min<size_t>(kWarpSize, threads_.size() - w * kWarpSize);
    warps_[w].live = lanes == kWarpSize ? ~0u : (1u << lanes) - 1;
    warps_[w].gatherings.clear();
  }
  started_ = gone_ = 0;
  shared_.begin_block();
  try {
    while (gone_ < threads_.size()) {
      if (started_ < order_.size()) {
        start(order_[started_++]);
      } else if (!ready_.empty()) {
        Thread* thread = ready_.front();
        ready_.pop_front();
        resume(thread);
      } else {
        report_deadlock();
      }
      if (error_) std::rethrow_exception(error_);
    }
    running_ = nullptr;
    const std::string broken = shared_.check();
    if (!broken.empty()) throw DeviceError(str(position(), ": ", broken));
  } catch (...) {
    abandon();
    throw;
  }
}

void Grid::start(Thread* thread) {
  thread->fiber = fibers().take(&Grid::fiber_main);
  resume(thread);
}

void Grid::resume(Thread* thread) {
  running_ = thread;
  threadIdx = thread->index;
  fiber_ = thread->fiber;
  fiber_->enter();
  // Whoever left last owns fiber_ unless it is done; then the fiber waits for another thread.
  if (running_->state == State::gone) fibers().give_back(fiber_);
}

void Grid::abandon() {
  for (Thread& t : threads_)
    if (t.state != State::fresh && t.state != State::gone) {
      t.fiber->reset(&Grid::fiber_main);
      fibers().give_back(t.fiber);
    }
}

void Grid::report_deadlock() {
  std::string waiting;
  std::vector<const Thread*> seen;
  for (const Thread& t : threads_) {
    if (t.state == State::gone) continue;
    const auto known = [&](const Thread* s) {
      return s->operation == t.operation && same(s->where, t.where);
    };
    if (std::any_of(seen.begin(), seen.end(), known)) continue;
    seen.push_back(&t);
    waiting += str(waiting.empty() ? "" : ", ", "thread ", text(t.index), " at ", t.operation, " (",
                   place(t.where), ")");
  }
  running_ = nullptr;
  throw DeviceError(str(position(), ": threads wait for each other: ", waiting, "; ", gone_, " of ",
                        threads_.size(), " threads have left the kernel"));
}

// --- what threads do, on their fibers

void Grid::fiber_main() {
  active->fiber_->started();
  for (;;) {
    Grid* grid = active;
    Fiber* fiber = grid->fiber_;
    try {
      grid->body_();
      grid->thread_ends();
    } catch (...) {
      grid->error_ = std::current_exception();
    }
    grid->running_->state = State::gone;
    // A kernel that never waits needs one fiber and no switch at all.
    if (!grid->error_ && grid->started_ < grid->order_.size()) {
      Thread* next = grid->order_[grid->started_++];
      next->fiber = fiber;
      grid->running_ = next;
      threadIdx = next->index;
      continue;
    }
    fiber->leave();
  }
}

void Grid::suspend(State state, const char* operation, const std::source_location& where) {
  Thread* self = running_;
  self->state = state;
  self->operation = operation;
  self->where = where;
  self->fiber->leave();
}

void Grid::make_ready(std::vector<Thread*>& released) {
  if (shuffled_) shuffler_.shuffle(released);
  for (Thread* t : released) {
    t->state = State::ready;
    ready_.push_back(t);
  }
  released.clear();
}

void Grid::thread_ends() {
  Thread& self = *running_;
  if (!self.copies.empty())
    fail(str("leaves the kernel with ", self.copies.size(), " cp_async that it never waited for"));
  if (!self.products.empty())
    fail(str("leaves the kernel with ", self.products.size(), " wgmma that it never waited for"));
  self.state = State::gone;
  ++gone_;
  if (!at_barrier_.empty())
    fail(str("leaves the kernel while ", at_barrier_.size(), " threads wait at sync_block (",
             place(at_barrier_[0]->where), "), the first is thread ", text(at_barrier_[0]->index)));
  Warp& warp = warps_[self.linear / kWarpSize];
  const uint32_t bit = 1u << self.linear % kWarpSize;
  warp.live &= ~bit;
  for (size_t i = warp.gatherings.size(); i-- > 0;) {
    const Gathering& g = warp.gatherings[i];
    if (g.arrived == (g.mask & warp.live)) finish_gathering(warp, i);
  }
}

void Grid::wait_for_block(const std::source_location& where) {
  if (gone_)
    fail(str("comes to sync_block (", place(where), ") after ", gone_,
             " threads of the block have left the kernel"));
  if (!at_barrier_.empty() && !same(at_barrier_[0]->where, where))
    fail(str("comes to sync_block (", place(where), ") while thread ", text(at_barrier_[0]->index),
             " waits at another (", place(at_barrier_[0]->where), ")"));
  at_barrier_.push_back(running_);
  running_->where = where;
  if (at_barrier_.size() == threads_.size()) {
    // In the block's order, whoever came last: the same schedule whatever the timing.
    std::sort(at_barrier_.begin(), at_barrier_.end());
    make_ready(at_barrier_);
  }
  suspend(at_barrier_.empty() ? State::ready : State::at_barrier, "sync_block", where);
}

void Grid::meet(const char* operation, uint32_t mask, const std::source_location& where,
                LaneData& data, void (*exchange)(Meeting&)) {
  Warp& warp = warps_[running_->linear / kWarpSize];
  const int lane = running_->linear % kWarpSize;
  const uint32_t bit = 1u << lane;
  if (!(mask & bit)) fail(str(operation, ": lane ", lane, " is not in its own mask"));
  std::memcpy(&warp.lanes[lane], &data, sizeof data);
  size_t at = 0;
  for (; at < warp.gatherings.size(); ++at) {
    Gathering& g = warp.gatherings[at];
    if (!(g.mask & mask)) continue;
    if (!same(g.operation, operation) || g.mask != mask || !same(g.where, where))
      fail(str("comes to ", operation, " (", place(where),
               ") while other lanes of its warp wait at ", g.operation, " (", place(g.where), ")"));
    g.arrived |= bit;
    break;
  }
  if (at == warp.gatherings.size())
    warp.gatherings.push_back({operation, mask, bit, where, exchange});
  const Gathering& g = warp.gatherings[at];
  if (g.arrived == (mask & warp.live)) {
    finish_gathering(warp, at);
  } else {
    suspend(State::at_meeting, operation, where);
  }
  std::memcpy(&data, &warp.lanes[lane], sizeof data);
}

void Grid::finish_gathering(Warp& warp, size_t index) {
  const Gathering g = warp.gatherings[index];
  warp.gatherings.erase(warp.gatherings.begin() + static_cast<ptrdiff_t>(index));
  Meeting meeting{warp.lanes, g.arrived};
  g.exchange(meeting);
  const size_t first = static_cast<size_t>(&warp - warps_.data()) * kWarpSize;
  for (int lane = 0; lane < kWarpSize; ++lane)
    if (g.arrived >> lane & 1 && &threads_[first + lane] != running_)
      met_.push_back(&threads_[first + lane]);
  make_ready(met_);
}

}  // namespace

// --- the interface

Settings& settings() {
  static Settings* instance = [] {
    auto* s = new Settings;
    if (const char* seed = std::getenv("MIXPL_EMULATION_SEED"))
      s->order_seed = std::strtoull(seed, nullptr, 0);
    if (const char* byte = std::getenv("MIXPL_EMULATION_POISON"))
      s->poison = static_cast<uint8_t>(std::strtoul(byte, nullptr, 0));
    return s;
  }();
  return *instance;
}

void run_grid(const std::source_location& where, dim3 grid, dim3 block, size_t dynamic_shared,
              Body body) {
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  const int64_t threads = int64_t{block.x} * block.y * block.z;
  const std::string launch = str(where.function_name(), " (", place(where), ")");
  if (threads < 1 || threads > kMostThreads || block.z > 64)
    throw DeviceError(str(launch, ": a block must have 1 to ", kMostThreads,
                          " threads, z at most 64, got ", text(block)));
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw DeviceError(
        str(launch, ": a grid may have (2^31 - 1, 65535, 65535) blocks, got ", text(grid)));
  if (static_cast<int64_t>(dynamic_shared) > kMostSharedBytes)
    throw DeviceError(str(launch, ": a block may have ", kMostSharedBytes,
                          " bytes of shared memory, got ", dynamic_shared));
  const int64_t blocks = int64_t{grid.x} * grid.y * grid.z;
  if (!blocks) return;
  before_launch(where);

  DeviceMemoryAccess access;
  Grid instance(where, block, dynamic_shared, body);
  struct Activation {
    explicit Activation(Grid* grid) { active = grid; }
    ~Activation() { active = nullptr; }
  } activation(&instance);
  gridDim = grid;
  blockDim = block;
  Shuffler order{settings().order_seed};
  std::vector<int64_t> shuffled;
  if (settings().order_seed) {
    shuffled.resize(blocks);
    for (int64_t b = 0; b < blocks; ++b) shuffled[b] = b;
    order.shuffle(shuffled);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t b = shuffled.empty() ? i : shuffled[i];
    blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
    instance.run_block(shuffled.empty() ? 0 : order.next() | 1);
  }
  const std::string broken = check_device_memory();
  if (!broken.empty()) throw DeviceError(str(launch, ": ", broken));
  note_launch(where, blocks * threads);
}

bool in_kernel() { return active != nullptr; }

void fail(const std::string& message) {
  if (!active) throw DeviceError(message);
  throw DeviceError(str(active->position(), " ", message));
}

int linear_thread() { return active->running().linear; }
int threads_of_block() { return active->threads(); }

void wait_for_block(const std::source_location& where) { active->wait_for_block(where); }
void meet(const char* operation, uint32_t mask, const std::source_location& where, LaneData& data,
          void (*exchange)(Meeting&)) {
  active->meet(operation, mask, where, data, exchange);
}

void* shared_memory(const void* key, const char* name, size_t bytes, size_t alignment) {
  return active->shared().get(key, name, bytes, alignment);
}
void* dynamic_shared_memory() { return active->shared().dynamic(); }
bool in_shared_memory(const void* p, size_t bytes) { return active->shared().contains(p, bytes); }

void start_copy(void* to, const void* from, int bytes, int valid_bytes) {
  const auto refuse = [&](const auto&... why) { fail(str("cp_async", bytes, ": ", why...)); };
  if (valid_bytes < 0 || valid_bytes > bytes)
    refuse("valid bytes must be in [0, ", bytes, "], got ", valid_bytes);
  if (reinterpret_cast<uintptr_t>(to) % bytes ||
      (valid_bytes && reinterpret_cast<uintptr_t>(from) % bytes))
    refuse("both addresses must be multiples of ", bytes);
  if (!active->shared().contains(to, bytes)) refuse("the target is not in shared memory");
  Thread& self = active->running();
  self.copies.push_back({to, from, bytes, valid_bytes, self.copy_group});
}
void commit_copies() { ++active->running().copy_group; }
void wait_for_copies(int groups_left) {
  Thread& self = active->running();
  // Groups committed and not to be waited for: the last `groups_left` of them, and the open one.
  const int done = self.copy_group - groups_left;
  size_t kept = 0;
  for (const Copy& c : self.copies) {
    if (c.group >= done) {
      self.copies[kept++] = c;
      continue;
    }
    self.unfenced = true;
    std::memcpy(c.to, c.from, c.valid_bytes);
    std::memset(static_cast<char*>(c.to) + c.valid_bytes, 0, c.bytes - c.valid_bytes);
  }
  self.copies.resize(kept);
}

void fence_copies() { active->running().unfenced = false; }

void start_product(const WarpgroupProduct& product) {
  if (const Thread* t = active->unfenced())
    fail(str("wgmma: thread ", text(t->index), " has copied without fence_async_proxy"));
  Thread& self = active->running();
  self.products.push_back(product);
  WarpgroupProduct& own = self.products.back();
  own.group = self.product_group;
  for (size_t i = 0; i + 1 < self.products.size(); ++i)
    own.first &= self.products[i].sums != own.sums;
  if (!own.first) return;
  own.start.assign(own.sums, own.sums + own.count);
  std::memset(own.sums, settings().poison, own.count * sizeof(float));
}
void commit_products() { ++active->running().product_group; }
void wait_for_products(int groups_left, const std::source_location& where) {
  Thread& self = active->running();
  const int done = self.product_group - groups_left;
  std::vector<WarpgroupProduct> due, later;
  for (const WarpgroupProduct& p : self.products) (p.group < done ? due : later).push_back(p);
  self.products = later;
  run_products(due, where);
}

}  // namespace emulation
}  // namespace mixpl::cuda
