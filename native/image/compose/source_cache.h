// Copies of pictures on a device. A picture of a training comes back in many batches (two views,
// then as a part of mixups and mosaics), and copying it takes longer than composing it.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>

#include "image/compose/compose.h"

namespace mixpl {

class SourceCache {
 public:
  /// @param budget bytes of copies to hold; beyond it those go that were used longest ago
  explicit SourceCache(int64_t budget) : budget_(budget) {}

  /// u8 [height, width, 3]. A source with an id is copied once while it is held.
  Tensor on_device(const ComposeSource& source, Device device);
  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    Tensor copy;
    std::list<uint64_t>::iterator use;
  };

  const int64_t budget_;
  int64_t bytes_ = 0;
  std::map<uint64_t, Entry> held_;
  std::list<uint64_t> uses_;  // ids, the latest first
  std::mutex mutex_;          // workers share a device
};

/// The device's own, of half a GiB.
SourceCache& source_cache(Device device);

}  // namespace mixpl
