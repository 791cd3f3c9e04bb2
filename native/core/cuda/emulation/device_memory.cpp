#include "core/cuda/emulation/device_memory.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "core/allocator.h"
#include "core/cuda/emulation/faults.h"
#include "core/cuda/emulation/grid.h"
#include "core/cuda/emulation/sanitizer.h"
#include "core/error.h"

namespace mixpl::cuda::emulation {
namespace {

constexpr int64_t kArenaBytes = int64_t{16} << 30;
constexpr int64_t kGuard = 256;  // before and after each block; also the alignment
// Large pages: protecting small ones one by one, at every launch, would take most of the time.
constexpr int64_t kPage = 2 << 20;
constexpr unsigned char kGuardByte = 0xc3, kFreeByte = 0xdd;

class Arena final : public MemorySource {
 public:
  Arena() {
    void* memory = mmap(nullptr, kArenaBytes + kPage, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    const auto start = reinterpret_cast<uintptr_t>(memory);
    base_ = top_ = reinterpret_cast<char*>((start + kPage - 1) / kPage * kPage);
    madvise(base_, kArenaBytes, MADV_HUGEPAGE);
    holes_[base_] = kArenaBytes;
  }

  bool contains(const void* p) const { return p >= base_ && p < base_ + kArenaBytes; }

  // --- opening and closing

  void open() {
    std::lock_guard lock(mutex_);
    if (users_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    std::lock_guard lock(mutex_);
    if (--users_ == 0) protect(PROT_NONE);
  }

  // --- MemorySource

  void* allocate(int64_t bytes) override {
    require_device("allocate");
    const int64_t total = rounded(bytes);
    DeviceMemoryAccess access;
    std::lock_guard lock(mutex_);
    if (used_ + total > memory_limit(kArenaBytes)) return nullptr;
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
      if (hole->second < total) continue;
      char* start = hole->first;
      const int64_t left = hole->second - total;
      holes_.erase(hole);
      if (left) holes_[start + total] = left;
      if (start + total > top_) {
        top_ = start + total;
        protect(PROT_READ | PROT_WRITE);
      }
      char* block = start + kGuard;
      blocks_[block] = {bytes, 0};
      used_ += total;
      if (kAddressSanitizer)
        poison(start, total);
      else
        std::memset(start, kGuardByte, kGuard);
      return block;
    }
    return nullptr;
  }

  void free(void* block, int64_t) override {
    std::lock_guard lock(mutex_);
    char* start = static_cast<char*>(block) - kGuard;
    const int64_t total = rounded(blocks_.at(static_cast<char*>(block)).size);
    blocks_.erase(static_cast<char*>(block));
    used_ -= total;
    poison(start, total);
    // Pages that are its own: a neighbour's values lie on the others.
    char* first = base_ + (start - base_ + kPage - 1) / kPage * kPage;
    char* last = base_ + (start + total - base_) / kPage * kPage;
    if (first < last) madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED);
    auto [hole, added] = holes_.emplace(start, total);
    if (auto next = std::next(hole); next != holes_.end() && start + hole->second == next->first) {
      hole->second += next->second;
      holes_.erase(next);
    }
    if (hole != holes_.begin())
      if (auto before = std::prev(hole); before->first + before->second == start) {
        before->second += hole->second;
        holes_.erase(hole);
      }
  }

  std::string describe() const override {
    return str("cuda:0 (emulated), where ", free_device_memory(), " of ", device_memory_bytes(),
               " bytes are free");
  }

  void on_take(void* block, int64_t bytes, int64_t size) override {
    DeviceMemoryAccess access;
    std::lock_guard lock(mutex_);
    char* p = static_cast<char*>(block);
    blocks_.at(p).used = bytes;
    unpoison(p, bytes);
    std::memset(p, settings().poison, bytes);
    if (!kAddressSanitizer) std::memset(p + bytes, kGuardByte, size - bytes + kGuard);
  }

  void on_give_back(void* block, int64_t size) override {
    DeviceMemoryAccess access;
    std::lock_guard lock(mutex_);
    char* p = static_cast<char*>(block);
    Block& b = blocks_.at(p);
    if (kAddressSanitizer) {
      poison(p, size);
    } else {
      std::memset(p, kFreeByte, size);
      std::memset(p + size, kGuardByte, kGuard);
    }
    b.used = 0;
  }

  // --- checks

  // The bytes from p to the end of its block, 0 when it lies in none.
  int64_t room(const void* p) {
    std::lock_guard lock(mutex_);
    auto found = blocks_.upper_bound(const_cast<char*>(static_cast<const char*>(p)));
    if (found == blocks_.begin()) return 0;
    --found;
    return std::max<int64_t>(0, found->first + found->second.used - static_cast<const char*>(p));
  }

  std::string check() {
    if (kAddressSanitizer) return "";
    std::lock_guard lock(mutex_);
    for (auto& [p, b] : blocks_) {
      if (!b.used) continue;
      const auto intact = [](char c) { return static_cast<unsigned char>(c) == kGuardByte; };
      char* end = p + b.used;
      if (std::all_of(p - kGuard, p, intact) && std::all_of(end, end + kGuard, intact)) continue;
      std::memset(p - kGuard, kGuardByte, kGuard);  // reported once
      std::memset(end, kGuardByte, kGuard);
      return str("wrote beside a block of ", b.used, " bytes of device memory");
    }
    return "";
  }

  int64_t used() const { return used_; }

 private:
  struct Block {
    int64_t size, used;
  };
  static int64_t rounded(int64_t bytes) {
    return (bytes + 2 * kGuard + kGuard - 1) / kGuard * kGuard;
  }
  void protect(int mode) {
    const int64_t bytes = (top_ - base_ + kPage - 1) / kPage * kPage;
    if (bytes) mprotect(base_, bytes, mode);
  }

  std::recursive_mutex mutex_;
  char *base_, *top_;  // the arena; what was ever used of it
  int users_ = 0;
  int64_t used_ = 0;
  std::map<char*, int64_t> holes_;
  std::map<char*, Block> blocks_;
};

struct sigaction previous_action;

Arena& arena();

// Turns a fault into an exception: kernels and the emulation can be unwound from any instruction
// (-fnon-call-exceptions). Not so other host code, nor what the compiler knows not to throw, such
// as memcpy; there the message on stderr is the last thing seen.
void on_fault(int signal, siginfo_t* info, void* context) {
  const void* at = info->si_addr;
  if (arena().contains(at)) {
    const bool inside = in_kernel();
    const std::string message =
        inside ? str("touches ", at, ", where no device memory was handed out")
               : str("device memory was touched on the host, outside kernels and copies, at ", at);
    std::fprintf(stderr, "mixpl emulation: %s\n", message.c_str());
    fail(message);
  }
  if (in_kernel() && !kAddressSanitizer)
    fail(str("touches ", at, ", where no memory was allocated"));
  // Somebody else's fault (V8's, the sanitizer's): they know what to do with it.
  if (previous_action.sa_flags & SA_SIGINFO)
    previous_action.sa_sigaction(signal, info, context);
  else if (previous_action.sa_handler == SIG_DFL)
    sigaction(signal, &previous_action, nullptr);  // returns to the fault and dies of it
  else if (previous_action.sa_handler != SIG_IGN)
    previous_action.sa_handler(signal);
}

Arena& arena() {
  static Arena* instance = [] {
    auto* made = new Arena;
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // Not blocked afterwards: the handler is left by throwing.
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous_action);
    return made;
  }();
  return *instance;
}

}  // namespace

MemorySource& device_memory() { return arena(); }
DeviceMemoryAccess::DeviceMemoryAccess() { arena().open(); }
DeviceMemoryAccess::~DeviceMemoryAccess() { arena().close(); }

bool is_device_memory(const void* p) { return arena().contains(p); }

void require_device_memory(const char* call, const void* p, size_t bytes) {
  const int64_t room = arena().room(p);
  if (static_cast<int64_t>(bytes) > room)
    fail(str(call, ": needs ", bytes, " bytes of device memory at ", p, ", ",
             room ? str("its block has ", room, " more")
                  : std::string(is_device_memory(p) ? "no block in use is there"
                                                    : "which is host memory")));
}

std::string check_device_memory() { return arena().check(); }
int64_t device_memory_bytes() { return memory_limit(kArenaBytes); }
int64_t free_device_memory() {
  return std::max<int64_t>(0, device_memory_bytes() - arena().used());
}

}  // namespace mixpl::cuda::emulation
