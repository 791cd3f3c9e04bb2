#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/windows/windows_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kBlock = 1 << 16;  // bytes that are worth a thread of their own

// f(cell of x or -1 for padding, token, how many follow each other in both) over all rows of all
// windows: those of a window's row are whole but where the map ends or comes around.
template <typename F>
void for_runs(const WindowCall& c, int64_t cell_bytes, F&& f) {
  const WindowAxis rows = WindowAxis::of(c.height, c.options),
                   columns = WindowAxis::of(c.width, c.options);
  const int64_t size = c.options.size, row_bytes = columns.padded() * cell_bytes;
  parallel_for(
      c.images * rows.padded(), std::max<int64_t>(1, kBlock / std::max<int64_t>(1, row_bytes)),
      [&](int64_t row) {
        const int64_t image = row / rows.padded(), at = row % rows.padded();
        const int64_t y = rows.cell_at(at);
        const int64_t first = y < c.height ? (image * c.height + y) * c.width : -1;
        for (int64_t window = 0; window < columns.windows; ++window) {
          const int64_t token =
              (((image * rows.windows + at / size) * columns.windows + window) * size + at % size) *
              size;
          for (int64_t i = 0; i < size;) {
            const int64_t x = columns.cell_at(window * size + i);
            const bool inside = first >= 0 && x < c.width;
            // To the map's end, to the padding's, or to the window's.
            const int64_t end = x < c.width ? c.width : columns.padded();
            const int64_t run = std::min(end - x, size - i);
            f(inside ? first + x : -1, token + i, run);
            i += run;
          }
        }
      });
}

template <typename T>
void sum(const T* a, const T* b, T* out, int64_t n) {
  int64_t i = 0;
  for (; i + simd::kWidth <= n; i += simd::kWidth)
    simd::store(out + i, simd::load(a + i) + simd::load(b + i));
  for (; i < n; ++i) out[i] = T(float(a[i]) + float(b[i]));
}

}  // namespace

void window_partition(const WindowCall& c, const Tensor& x, Tensor& windows) {
  const int64_t bytes = c.channels * size_of(x.dtype());
  const auto* from = static_cast<const char*>(x.raw());
  auto* to = static_cast<char*>(windows.raw());
  for_runs(c, bytes, [=](int64_t cell, int64_t token, int64_t n) {
    if (cell < 0)
      std::memset(to + token * bytes, 0, n * bytes);
    else
      std::memcpy(to + token * bytes, from + cell * bytes, n * bytes);
  });
}

void window_merge(const WindowCall& c, const Tensor& windows, const Tensor& residual, Tensor& y) {
  const int64_t bytes = c.channels * size_of(y.dtype());
  if (!residual.defined()) {
    const auto* from = static_cast<const char*>(windows.raw());
    auto* to = static_cast<char*>(y.raw());
    for_runs(c, bytes, [=](int64_t cell, int64_t token, int64_t n) {
      if (cell >= 0) std::memcpy(to + cell * bytes, from + token * bytes, n * bytes);
    });
    return;
  }
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T *from = windows.data<T>(), *added = residual.data<T>();
    T* to = y.data<T>();
    for_runs(c, bytes, [=, channels = c.channels](int64_t cell, int64_t token, int64_t n) {
      if (cell >= 0)
        sum(added + cell * channels, from + token * channels, to + cell * channels, n * channels);
    });
  });
}

void window_mask(const WindowCall& c, Tensor& mask) {
  const WindowAxis rows = WindowAxis::of(c.height, c.options),
                   columns = WindowAxis::of(c.width, c.options);
  const int64_t size = c.options.size, tokens = size * size;
  uint8_t* out = mask.data<uint8_t>();
  parallel_for(mask.size(0), int64_t{1}, [=](int64_t window) {
    const int64_t row = window / columns.windows, column = window % columns.windows;
    uint8_t* to = out + window * tokens * tokens;
    std::memset(to, 0, tokens * tokens);
    if (row < rows.windows - 1 && column < columns.windows - 1) return;
    for (int64_t a = 0; a < tokens; ++a)
      for (int64_t b = 0; b < tokens; ++b)
        to[a * tokens + b] = rows.wrapped(row, a / size) != rows.wrapped(row, b / size) ||
                             columns.wrapped(column, a % size) != columns.wrapped(column, b % size);
  });
}

}  // namespace mixpl::cpu
