#include "image/compose/source_cache.h"

#include "core/launch.h"
#include "core/tensor_values.h"

namespace mixpl {
namespace {

constexpr int64_t kBudget = int64_t{512} << 20;

Tensor copied(const ComposeSource& source, Device device) {
  const Tensor copy = Tensor::empty({source.height, source.width, 3}, DType::u8, device);
  MIXPL_DISPATCH(device, write_values, copy, source.data);
  return copy;
}

}  // namespace

Tensor SourceCache::on_device(const ComposeSource& source, Device device) {
  if (source.id == 0) return copied(source, device);
  std::lock_guard lock(mutex_);
  if (const auto found = held_.find(source.id); found != held_.end()) {
    uses_.splice(uses_.begin(), uses_, found->second.use);
    return found->second.copy;
  }
  const Tensor copy = copied(source, device);
  if (copy.nbytes() > budget_) return copy;
  uses_.push_front(source.id);
  held_.emplace(source.id, Entry{copy, uses_.begin()});
  bytes_ += copy.nbytes();
  while (bytes_ > budget_) {
    const auto oldest = held_.find(uses_.back());
    bytes_ -= oldest->second.copy.nbytes();
    held_.erase(oldest);
    uses_.pop_back();
  }
  return copy;
}

SourceCache& source_cache(Device device) {
  static std::mutex mutex;
  // Never destroyed: the devices' pools may be gone before static destructors run.
  static auto* caches = new std::map<int, SourceCache>;
  std::lock_guard lock(mutex);
  return caches->try_emplace(device.index, kBudget).first->second;
}

}  // namespace mixpl
