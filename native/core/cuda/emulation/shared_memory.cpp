#include "core/cuda/emulation/shared_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/cuda/emulation/grid.h"
#include "core/cuda/emulation/sanitizer.h"
#include "core/error.h"

namespace mixpl::cuda::emulation {
namespace {
constexpr size_t kGuard = 1024;  // also the alignment of every array
constexpr unsigned char kGuardByte = 0xc3;

bool intact(const char* guard) {
  return std::all_of(guard, guard + kGuard,
                     [](char c) { return static_cast<unsigned char>(c) == kGuardByte; });
}
}  // namespace

SharedMemory::SharedMemory(size_t dynamic_bytes) {
  add(nullptr, "dynamic shared memory", dynamic_bytes);
}

SharedMemory::~SharedMemory() {
  for (const Array& a : arrays_) {
    unpoison(a.memory, a.bytes + 2 * kGuard);
    std::free(a.memory);
  }
}

void SharedMemory::add(const void* key, const char* name, size_t bytes) {
  const size_t total = (bytes + 2 * kGuard + kGuard - 1) / kGuard * kGuard;
  char* memory = static_cast<char*>(std::aligned_alloc(kGuard, total));
  if (!memory) throw std::bad_alloc();
  char* data = memory + kGuard;
  std::memset(memory, kGuardByte, kGuard);
  std::memset(data, settings().poison, bytes);
  std::memset(data + bytes, kGuardByte, kGuard);
  poison(memory, kGuard);
  poison(data + bytes, kGuard);
  arrays_.push_back({key, name, bytes, memory, data});
}

void SharedMemory::begin_block() {
  for (const Array& a : arrays_) std::memset(a.data, settings().poison, a.bytes);
}

void* SharedMemory::get(const void* key, const char* name, size_t bytes, size_t alignment) {
  for (const Array& a : arrays_)
    if (a.key == key && a.key) return a.data;
  int64_t fixed = 0;
  for (const Array& a : arrays_)
    if (a.key) fixed += static_cast<int64_t>(a.bytes);
  if (fixed + static_cast<int64_t>(bytes) > kMostStaticSharedBytes)
    fail(str("declares more than ", kMostStaticSharedBytes, " bytes of static shared memory (",
             name, " has ", bytes, ")"));
  if (alignment > kGuard) fail(str(name, ": shared memory is aligned to at most ", kGuard));
  add(key, name, bytes);
  return arrays_.back().data;
}

bool SharedMemory::contains(const void* p, size_t bytes) const {
  const char* first = static_cast<const char*>(p);
  return std::any_of(arrays_.begin(), arrays_.end(), [&](const Array& a) {
    return first >= a.data && first + bytes <= a.data + a.bytes;
  });
}

std::string SharedMemory::check() const {
  if (kAddressSanitizer) return "";
  for (const Array& a : arrays_) {
    if (!intact(a.memory)) return str("wrote in front of ", a.name);
    if (!intact(a.data + a.bytes)) return str("wrote behind ", a.name, " (", a.bytes, " bytes)");
  }
  return "";
}

}  // namespace mixpl::cuda::emulation
