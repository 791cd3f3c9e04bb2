#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "ops/patches/patches.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kBlock = 1 << 16;  // bytes that are worth a thread of their own

// f(row of x or -1 below the map, first byte of the patches' row, its bytes) over rows of patches'
// cells: their columns follow each other in a patch as they do in the map.
template <typename F>
void for_patch_rows(const Tensor& x, const Tensor& y, int64_t size, F&& f) {
  const int64_t height = x.size(1), down = y.size(1), across = y.size(2);
  const int64_t run = size * x.size(3) * size_of(x.dtype());  // bytes of a row of a patch
  const int64_t rows = x.size(0) * down * size;
  parallel_for(rows, std::max<int64_t>(1, kBlock / std::max<int64_t>(1, across * run)),
               [&](int64_t i) {
                 const int64_t image = i / (down * size), row = i % (down * size);
                 f(row < height ? image * height + row : -1,
                   ((image * down + row / size) * across * size + row % size) * run, run);
               });
}

}  // namespace

void patches_forward(const Tensor& x, int64_t size, Tensor& y) {
  const int64_t across = y.size(2), row_bytes = x.size(2) * x.size(3) * size_of(x.dtype());
  const auto* from = static_cast<const char*>(x.raw());
  auto* to = static_cast<char*>(y.raw());
  for_patch_rows(x, y, size, [=](int64_t row, int64_t at, int64_t run) {
    for (int64_t p = 0; p < across; ++p) {
      char* out = to + at + p * size * run;
      const int64_t filled = row < 0 ? 0 : std::min(run, row_bytes - p * run);
      if (filled > 0) std::memcpy(out, from + row * row_bytes + p * run, filled);
      std::memset(out + filled, 0, run - filled);
    }
  });
}

void patches_backward(const Tensor& dy, int64_t size, Tensor& dx) {
  const int64_t across = dy.size(2), row_bytes = dx.size(2) * dx.size(3) * size_of(dx.dtype());
  const auto* from = static_cast<const char*>(dy.raw());
  auto* to = static_cast<char*>(dx.raw());
  for_patch_rows(dx, dy, size, [=](int64_t row, int64_t at, int64_t run) {
    if (row < 0) return;
    for (int64_t p = 0; p < across; ++p)
      std::memcpy(to + row * row_bytes + p * run, from + at + p * size * run,
                  std::min(run, row_bytes - p * run));
  });
}

}  // namespace mixpl::cpu
