#include "core/fence.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace mixpl::fence {
namespace {

constexpr unsigned char kFilling = 0xff;

// To the address sanitizer a fence is no memory; generated code, which it does not watch, still
// reads NaN there.
void close(const char* fence) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(fence, kBytes);
#endif
}
void open(const char* fence) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fence, kBytes);
#endif
}

bool is_whole(const char* fence) {
  return std::all_of(fence, fence + kBytes,
                     [](char c) { return static_cast<unsigned char>(c) == kFilling; });
}

}  // namespace

bool is_wanted() {
  static const bool wanted = [] {
    const char* value = std::getenv("MIXPL_CHECK_MEMORY");
    return value && std::string_view(value) == "1";
  }();
  return wanted;
}

void build(char* block, int64_t bytes) {
  std::memset(block - kBytes, kFilling, static_cast<size_t>(bytes + 2 * kBytes));
  close(block - kBytes);
  close(block + bytes);
}

void check(const char* block, int64_t bytes) {
  open(block - kBytes);
  open(block + bytes);
  const bool before = is_whole(block - kBytes), after = is_whole(block + bytes);
  if (before && after) return;
  std::fprintf(stderr, "mixpl: something wrote %s a block of %lld bytes\n",
               before ? "past the end of" : "in front of", static_cast<long long>(bytes));
  std::abort();
}

}  // namespace mixpl::fence
