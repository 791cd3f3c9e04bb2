#include "core/side_work.h"

#include <map>
#include <memory>

#include "core/cuda/runtime.h"
#include "core/cuda/side_stream.h"
#include "core/error.h"
#include "core/side_memory.h"

namespace mixpl {
namespace {

struct Beside {
  std::mutex mutex;   // a scope keeps it: nobody joins while work is still being given
  bool open = false;  // forked and not joined
};

// Never destroyed, as all that belongs to devices.
Beside& beside(Device device) {
  static std::mutex mutex;
  static auto* all = new std::map<int, std::unique_ptr<Beside>>;
  std::lock_guard lock(mutex);
  std::unique_ptr<Beside>& one = (*all)[device.index];
  if (!one) one = std::make_unique<Beside>();
  return *one;
}

bool has_side(Device device) {
  if (!device.is_cuda()) return false;
  cuda::use_device(device.index);
  return cuda::has_side_stream();
}

void join_locked(Beside& side, Device device) {
  if (!side.open) return;
  cuda::join_side_stream();
  join_memory(device);
  side.open = false;
}

thread_local bool inside = false;

}  // namespace

SideWork::SideWork(Device device) : device_(device) {
  if (!has_side(device)) return;
  if (inside) throw StateError("work beside a device's other work cannot have work beside it");
  Beside& side = beside(device);
  std::unique_lock lock(side.mutex);
  join_locked(side, device);
  // Memory first: what went back until now was last used by work that the fork is behind.
  fork_memory(device);
  try {
    cuda::enter_side_stream();
  } catch (...) {
    leave_side_memory();
    join_memory(device);
    throw;
  }
  side.open = inside = true;
  lock_ = std::move(lock);
}

SideWork::~SideWork() {
  if (!lock_) return;
  cuda::leave_side_stream();
  leave_side_memory();
  inside = false;
}

void join_side_work(Device device) {
  if (!has_side(device)) return;
  if (inside) throw StateError("work beside a device's other work cannot be joined by itself");
  Beside& side = beside(device);
  std::lock_guard lock(side.mutex);
  join_locked(side, device);
}

}  // namespace mixpl
