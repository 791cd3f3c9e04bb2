#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/max_pool2d/max_pool2d.h"
#include "ops/max_pool2d/max_pool2d_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;
using simd::i32x8;

// A pixel of a window, and its position there.
template <typename T>
struct Tap {
  const T* from;
  int32_t position;
};

// kVectors of eight channels from c on: side by side, for each waits for its last comparison.
template <int kVectors, typename T>
void largest_at(const std::vector<Tap<T>>& taps, int64_t c, T* y, uint8_t* winner) {
  f32x8 best[kVectors];
  i32x8 at[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    best[i] = simd::splat(-std::numeric_limits<float>::infinity());
    at[i] = i32x8{} - 1;
  }
  for (const Tap<T>& tap : taps)
    for (int i = 0; i < kVectors; ++i) {
      const f32x8 v = simd::load(tap.from + c + 8 * i);
      const i32x8 take = (i32x8)wins(v, best[i], at[i]);
      best[i] = simd::select(take, v, best[i]);
      at[i] = (i32x8)simd::select(take, (f32x8)(i32x8{} + tap.position), (f32x8)at[i]);
    }
  for (int i = 0; i < kVectors; ++i) {
    simd::store(y + c + 8 * i, best[i]);
    if (winner) simd::store(winner + c + 8 * i, at[i]);
  }
}

template <typename T>
void largest_of(const std::vector<Tap<T>>& taps, int64_t channels, T* y, uint8_t* winner) {
  int64_t c = 0;
  for (; c + 32 <= channels; c += 32) largest_at<4>(taps, c, y, winner);
  for (; c + 8 <= channels; c += 8) largest_at<1>(taps, c, y, winner);
  for (; c < channels; ++c) {
    float best = -std::numeric_limits<float>::infinity();
    int32_t at = -1;
    for (const Tap<T>& tap : taps)
      if (const float v = float(tap.from[c]); wins(v, best, at)) best = v, at = tap.position;
    y[c] = T(best);
    if (winner) winner[c] = static_cast<uint8_t>(at);
  }
}

// A window that an input pixel lies in: its gradient, who won there, and where the pixel lies.
template <typename T>
struct Window {
  const T* dy;
  const uint8_t* winner;
  int32_t position;
};

template <typename T>
void sum_of_won(const std::vector<Window<T>>& windows, int64_t channels, T* dx) {
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    f32x8 sum{};
    for (const Window<T>& window : windows)
      sum += simd::keep(simd::load_i32(window.winner + c) == window.position,
                        simd::load(window.dy + c));
    simd::store(dx + c, sum);
  }
  for (; c < channels; ++c) {
    float sum = 0;
    for (const Window<T>& window : windows)
      if (window.winner[c] == window.position) sum += float(window.dy[c]);
    dx[c] = T(sum);
  }
}

}  // namespace

// One output pixel at a time, channels innermost. The running best is kept in f32.
void max_pool2d_forward(const Tensor& x, const Pool2dOptions& o, Tensor& y, Tensor& winner) {
  const int64_t h = x.size(1), w = x.size(2), c = x.size(3), p = y.size(1), q = y.size(2);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    uint8_t* won = winner.defined() ? winner.data<uint8_t>() : nullptr;
    parallel_chunks(y.size(0) * p, 1, [&](int64_t begin, int64_t end) {
      std::vector<Tap<T>> taps;
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / p, top = row % p * o.stride - o.padding;
        for (int64_t j = 0; j < q; ++j) {
          const int64_t left = j * o.stride - o.padding;
          taps.clear();
          for (int r = 0; r < o.kernel; ++r)
            for (int s = 0; s < o.kernel; ++s) {
              const int64_t yy = top + r, xx = left + s;
              if (yy >= 0 && yy < h && xx >= 0 && xx < w)
                taps.push_back({in + ((n * h + yy) * w + xx) * c, r * o.kernel + s});
            }
          const int64_t at = (row * q + j) * c;
          largest_of(taps, c, y.data<T>() + at, won ? won + at : nullptr);
        }
      }
    });
  });
}

// Gathers instead of scattering: each input pixel asks the windows that cover it, so threads never
// write to the same place.
void max_pool2d_backward(const Tensor& dy, const Tensor& winner, const Pool2dOptions& o,
                         Tensor& dx) {
  const int64_t h = dx.size(1), w = dx.size(2), c = dx.size(3), p = dy.size(1), q = dy.size(2);
  dispatch_floating(dx.dtype(), [&](auto tag) {
    using T = decltype(tag);
    parallel_chunks(dx.size(0) * h, 1, [&](int64_t begin, int64_t end) {
      std::vector<Window<T>> windows;
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / h, yy = row % h;
        for (int64_t xx = 0; xx < w; ++xx) {
          windows.clear();
          for (int r = 0; r < o.kernel; ++r) {
            const int64_t top = yy + o.padding - r;
            if (top < 0 || top % o.stride || top / o.stride >= p) continue;
            for (int s = 0; s < o.kernel; ++s) {
              const int64_t left = xx + o.padding - s;
              if (left < 0 || left % o.stride || left / o.stride >= q) continue;
              const int64_t at = ((n * p + top / o.stride) * q + left / o.stride) * c;
              windows.push_back({dy.data<T>() + at, winner.data<uint8_t>() + at, r * o.kernel + s});
            }
          }
          sum_of_won(windows, c, dx.data<T>() + (row * w + xx) * c);
        }
      }
    });
  });
}

}  // namespace mixpl::cpu
