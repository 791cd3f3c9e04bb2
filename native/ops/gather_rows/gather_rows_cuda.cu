#include <limits>

#include "core/cuda/packs.h"
#include "ops/gather_rows/gather_rows.h"

namespace mixpl::cuda {
namespace {

struct FindBad {
  const int32_t* rows;
  int64_t count;
  int* first;  // the least bad place
  MIXPL_DEVICE void operator()(int64_t i) const {
    if (rows[i] <= (i > 0 ? rows[i - 1] : -1) || rows[i] >= count)
      atomic_min(first, static_cast<int>(i));
  }
};

// Rows of `wide` at rows[i] to or from rows i of the f32 `narrow`. No row is there twice, so the
// backward writes each place once.
template <typename T, bool kForward>
struct Rows {
  T* wide;
  const int32_t* rows;
  float* narrow;
  Divider packs;  // of a row
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;
    const uint32_t row = packs.split(column);
    T* at = wide + (int64_t{rows[row]} * packs.divisor() + column) * N;
    float* own = narrow + int64_t{i} * N;
    const bool none = rows[row] < 0;
    if constexpr (kForward) {
      const Vec<T, N> v = none ? Vec<T, N>{} : load_vec<T, N>(at);
      Vec<float, N> out;
      for (int n = 0; n < N; ++n) out[n] = float(v[n]);
      store_vec(own, out);
    } else if (!none) {
      const Vec<float, N> v = load_vec<float, N>(own);
      Vec<T, N> out;
      for (int n = 0; n < N; ++n) out[n] = T(v[n]);
      store_vec(at, out);
    }
  }
};

template <bool kForward>
void copy(const Tensor& wide, const Tensor& rows, const Tensor& narrow) {
  const int64_t columns = narrow.size(1);
  dispatch_floating(wide.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const auto run = [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(narrow.numel() / N,
                       Rows<T, kForward>{wide.data<T>(), rows.data<int32_t>(),
                                         narrow.data<float>(), Divider(columns / N)});
    };
    if (columns % 4 == 0)  // 16 bytes of the f32 rows
      run(PackOf<4>());
    else
      run(PackOf<1>());
  });
}

}  // namespace

BadRow gather_rows_bad_row(const Tensor& rows, int64_t count) {
  int32_t place = std::numeric_limits<int32_t>::max(), row = 0;
  const int32_t none = place;
  const Tensor first = Tensor::empty({1}, DType::i32, rows.device());
  copy_to_device(first.raw(), &place, sizeof place);
  for_each(rows.numel(), FindBad{rows.data<int32_t>(), count, first.data<int32_t>()});
  copy_to_host(&place, first.raw(), sizeof place);
  if (place == none) return {};
  copy_to_host(&row, rows.data<int32_t>() + place, sizeof row);
  return {place, row};
}

void gather_rows_forward(const Tensor& x, const Tensor& rows, Tensor& y) {
  copy<true>(x, rows, y);
}

void gather_rows_backward(const Tensor& dy, const Tensor& rows, Tensor& dx) {
  copy<false>(dx, rows, dy);
}

}  // namespace mixpl::cuda
