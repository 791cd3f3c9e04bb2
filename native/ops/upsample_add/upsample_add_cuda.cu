#include "core/cuda/packs.h"
#include "ops/upsample_add/upsample_add.h"
#include "ops/upsample_add/upsample_add_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Forward {
  const T *lateral, *top;
  T* y;
  Divider packs, width, height;  // packs: of a pixel
  uint32_t top_width, top_height;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, x = packs.split(k), row = width.split(x), image = height.split(row);
    const uint32_t source_y = height.quotient(row * top_height),
                   source_x = width.quotient(x * top_width);
    const int64_t source =
        (int64_t{image * top_height + source_y} * top_width + source_x) * packs.divisor() + k;
    Vec<T, N> a = load_vec<T, N>(lateral + int64_t{i} * N);
    const Vec<T, N> b = load_vec<T, N>(top + source * N);
    for (int n = 0; n < N; ++n) a[n] = T(float(a[n]) + float(b[n]));
    store_vec(y + int64_t{i} * N, a);
  }
};

template <typename T>
struct Backward {
  const T* dy;
  T* dtop;
  Divider packs, top_width, top_height;
  uint32_t width, height;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t k = i, x = packs.split(k), s = top_width.split(x), image = top_height.split(s);
    const uint32_t bottom = first_fed(s + 1, height, top_height.divisor()),
                   left = first_fed(x, width, top_width.divisor()),
                   right = first_fed(x + 1, width, top_width.divisor());
    float sum[N] = {};
    for (uint32_t yy = first_fed(s, height, top_height.divisor()); yy < bottom; ++yy)
      for (uint32_t xx = left; xx < right; ++xx) {
        const int64_t at = (int64_t{image * height + yy} * width + xx) * packs.divisor() + k;
        const Vec<T, N> v = load_vec<T, N>(dy + at * N);
        for (int n = 0; n < N; ++n) sum[n] += float(v[n]);
      }
    Vec<T, N> out;
    for (int n = 0; n < N; ++n) out[n] = T(sum[n]);
    store_vec(dtop + int64_t{i} * N, out);
  }
};

// A product of the sizes must fit an index, or places would wrap around.
void check_sizes(const Tensor& large, const Tensor& small) {
  for (int axis : {1, 2}) index_of((large.size(axis) + 1) * (small.size(axis) + 1));
}

}  // namespace

void upsample_add_forward(const Tensor& lateral, const Tensor& top, Tensor& y) {
  check_sizes(y, top);
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(y.size(3), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(y.numel() / N,
                       Forward<T>{lateral.data<T>(), top.data<T>(), y.data<T>(),
                                  Divider(y.size(3) / N), Divider(y.size(2)), Divider(y.size(1)),
                                  index_of(top.size(2)), index_of(top.size(1))});
    });
  });
}

void upsample_add_backward(const Tensor& dy, Tensor& dtop) {
  check_sizes(dy, dtop);
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(dy.size(3), [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(dtop.numel() / N,
                       Backward<T>{dy.data<T>(), dtop.data<T>(), Divider(dtop.size(3) / N),
                                   Divider(dtop.size(2)), Divider(dtop.size(1)),
                                   index_of(dy.size(2)), index_of(dy.size(1))});
    });
  });
}

}  // namespace mixpl::cuda
