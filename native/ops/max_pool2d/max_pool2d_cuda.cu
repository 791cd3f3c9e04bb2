#include <limits>

#include "core/cuda/packs.h"
#include "ops/max_pool2d/max_pool2d.h"
#include "ops/max_pool2d/max_pool2d_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Forward {
  const T* x;
  T* y;
  uint8_t* winner;               // null when not wanted
  Divider packs, width, height;  // of y; packs: of a pixel
  int h, w;                      // of x
  Pool2dOptions o;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, column = packs.split(k), row = width.split(column), n = height.split(row);
    const int top = static_cast<int>(row) * o.stride - o.padding,
              left = static_cast<int>(column) * o.stride - o.padding;
    const T* image = x + (int64_t{n} * h * w * packs.divisor() + k) * N;
    float best[N];
    int at[N];
    for (int j = 0; j < N; ++j) {
      best[j] = -std::numeric_limits<float>::infinity();
      at[j] = -1;
    }
    for (int r = 0; r < o.kernel; ++r) {
      if (top + r < 0 || top + r >= h) continue;
      for (int s = 0; s < o.kernel; ++s) {
        if (left + s < 0 || left + s >= w) continue;
        const Vec<T, N> v = load_vec<T, N>(image + (int64_t{top + r} * w + left + s) *
                                                       (int64_t{packs.divisor()} * N));
        for (int j = 0; j < N; ++j) {
          const bool take = wins(float(v[j]), best[j], at[j]);
          best[j] = take ? float(v[j]) : best[j];
          at[j] = take ? r * o.kernel + s : at[j];
        }
      }
    }
    Vec<T, N> out;
    Vec<uint8_t, N> won;
    for (int j = 0; j < N; ++j) {
      out[j] = T(best[j]);
      won[j] = static_cast<uint8_t>(at[j]);
    }
    store_vec(y + int64_t{i} * N, out);
    if (winner) store_vec(winner + int64_t{i} * N, won);
  }
};

// Gathers instead of scattering: each input pixel asks the windows that cover it, in the order of
// its place in them.
template <typename T>
struct Backward {
  const T* dy;
  const uint8_t* winner;
  T* dx;
  Divider packs, width, height, stride;  // of x
  int p, q;                              // of y
  Pool2dOptions o;

  // Windows along one axis that cover the input's place: first ... last, clipped to `count`.
  MIXPL_DEVICE void windows(int place, int count, int* first, int* last) const {
    const int end = place + o.padding, begin = end - o.kernel + 1;
    *first = begin > 0 ? static_cast<int>(stride.quotient(begin + o.stride - 1)) : 0;
    *last = static_cast<int>(stride.quotient(end));
    if (*last > count - 1) *last = count - 1;
  }

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, column = packs.split(k), row = width.split(column), n = height.split(row);
    const int y = static_cast<int>(row), x = static_cast<int>(column);
    int top, bottom, left, right;
    windows(y, p, &top, &bottom);
    windows(x, q, &left, &right);
    float sum[N] = {};
    for (int yy = bottom; yy >= top; --yy)
#pragma unroll 1  // ptxas spills on sm_120 otherwise; few windows cover a place
      for (int xx = right; xx >= left; --xx) {
        const int64_t at =
            ((int64_t{n} * p + yy) * q + xx) * (int64_t{packs.divisor()} * N) + int64_t{k} * N;
        const int place =
            (y + o.padding - yy * o.stride) * o.kernel + x + o.padding - xx * o.stride;
        const Vec<uint8_t, N> won = load_vec<uint8_t, N>(winner + at);
        const Vec<T, N> v = load_vec<T, N>(dy + at);
        for (int j = 0; j < N; ++j) sum[j] += won[j] == place ? float(v[j]) : 0.0f;
      }
    Vec<T, N> out;
    for (int j = 0; j < N; ++j) out[j] = T(sum[j]);
    store_vec(dx + int64_t{i} * N, out);
  }
};

}  // namespace

void max_pool2d_forward(const Tensor& x, const Pool2dOptions& o, Tensor& y, Tensor& winner) {
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(y.size(3), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(
          y.numel() / N,
          Forward<T>{x.data<T>(), y.data<T>(), winner.defined() ? winner.data<uint8_t>() : nullptr,
                     Divider(y.size(3) / N), Divider(y.size(2)), Divider(y.size(1)),
                     static_cast<int>(index_of(x.size(1))), static_cast<int>(index_of(x.size(2))),
                     o});
    });
  });
}

void max_pool2d_backward(const Tensor& dy, const Tensor& winner, const Pool2dOptions& o,
                         Tensor& dx) {
  dispatch_floating(dx.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(dx.size(3), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(
          dx.numel() / N,
          Backward<T>{dy.data<T>(), winner.data<uint8_t>(), dx.data<T>(), Divider(dx.size(3) / N),
                      Divider(dx.size(2)), Divider(dx.size(1)), Divider(o.stride),
                      static_cast<int>(index_of(dy.size(1))),
                      static_cast<int>(index_of(dy.size(2))), o});
    });
  });
}

}  // namespace mixpl::cuda
