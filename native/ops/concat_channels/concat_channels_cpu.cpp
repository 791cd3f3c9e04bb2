#include <algorithm>

#include "core/parallel.h"
#include "ops/concat_channels/concat_channels.h"

namespace mixpl::cpu {
namespace {

// copy(bytes of the part's row, bytes of the whole's row, row length in bytes) for every row.
template <typename F>
void for_rows(const Tensor& part, int64_t first, const Tensor& whole, F&& copy) {
  if (part.numel() == 0) return;
  const int64_t item = size_of(part.dtype());
  const int64_t length = part.size(-1) * item, stride = whole.size(-1) * item;
  char* a = static_cast<char*>(part.raw());
  char* b = static_cast<char*>(whole.raw()) + first * item;
  parallel_for(part.numel() / part.size(-1), std::max<int64_t>(1, 65536 / length),
               [=](int64_t row) { copy(a + row * length, b + row * stride, length); });
}

}  // namespace

void put_channels(const Tensor& part, int64_t first, Tensor& whole) {
  for_rows(part, first, whole,
           [](char* part, char* whole, int64_t n) { std::memcpy(whole, part, n); });
}

void take_channels(const Tensor& whole, int64_t first, Tensor& part) {
  for_rows(part, first, whole,
           [](char* part, char* whole, int64_t n) { std::memcpy(part, whole, n); });
}

}  // namespace mixpl::cpu
