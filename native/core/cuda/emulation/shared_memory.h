// Shared memory of an emulated block: each array with a guard on both sides.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace mixpl::cuda::emulation {

class SharedMemory {
 public:
  explicit SharedMemory(size_t dynamic_bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// A new block sees poison, not what the last one left.
  void begin_block();
  void* get(const void* key, const char* name, size_t bytes, size_t alignment);
  void* dynamic() const { return arrays_[0].data; }
  bool contains(const void* p, size_t bytes) const;
  /// What a block has overwritten beside its arrays, "" when nothing. (AddressSanitizer has stopped
  /// it before.)
  std::string check() const;

 private:
  struct Array {
    const void* key;
    std::string name;
    size_t bytes;
    char *memory, *data;
  };
  void add(const void* key, const char* name, size_t bytes);

  std::vector<Array> arrays_;  // the first is the dynamic one
};

}  // namespace mixpl::cuda::emulation
