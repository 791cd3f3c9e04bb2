#include "core/cuda/packs.h"
#include "ops/windows/windows_math.h"

namespace mixpl::cuda {
namespace {

struct Dividers {
  WindowAxis rows, columns;
  Divider size, row_windows, column_windows, height, width;

  explicit Dividers(const WindowCall& c)
      : rows(WindowAxis::of(c.height, c.options)),
        columns(WindowAxis::of(c.width, c.options)),
        size(c.options.size),
        row_windows(rows.windows),
        column_windows(columns.windows),
        height(c.height),
        width(c.width) {}
};

// A pack of a window's token from its place in the map, in units of two bytes.
struct Partition {
  const uint16_t* x;
  uint16_t* windows;
  Divider packs;  // of a token
  Dividers d;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;                    // of the token
    uint32_t right = packs.split(column);   // token
    uint32_t below = d.size.split(right);   // its row in the window
    uint32_t across = d.size.split(below);  // window
    uint32_t down = d.column_windows.split(across);
    const uint32_t image = d.row_windows.split(down);
    const int64_t y = d.rows.cell_at(int64_t{down} * d.size.divisor() + below),
                  x_ = d.columns.cell_at(int64_t{across} * d.size.divisor() + right);
    Vec<uint16_t, N> v{};
    if (y < d.rows.cells && x_ < d.columns.cells)
      v = load_vec<uint16_t, N>(
          x + (((image * d.rows.cells + y) * d.columns.cells + x_) * packs.divisor() + column) * N);
    store_vec(windows + int64_t{i} * N, v);
  }
};

// A pack of the map from its token, to which the residual is added.
template <typename T, bool kResidual>
struct Merge {
  const T *windows, *residual;
  T* y;
  Divider packs;
  Dividers d;

  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;
    uint32_t cell = packs.split(column);
    uint32_t row = d.width.split(cell);
    const uint32_t image = d.height.split(row);
    uint32_t below = static_cast<uint32_t>(d.rows.place_of(row)),
             right = static_cast<uint32_t>(d.columns.place_of(cell));
    const uint32_t down = d.size.split(below), across = d.size.split(right);
    const int64_t window = (image * d.rows.windows + down) * d.columns.windows + across;
    const int64_t token = (window * d.size.divisor() + below) * d.size.divisor() + right;
    Vec<T, N> v = load_vec<T, N>(windows + (token * packs.divisor() + column) * N);
    if constexpr (kResidual) {
      const Vec<T, N> added = load_vec<T, N>(residual + int64_t{i} * N);
      for (int n = 0; n < N; ++n) v[n] = T(float(added[n]) + float(v[n]));
    }
    store_vec(y + int64_t{i} * N, v);
  }
};

template <typename T, bool kResidual>
void merge(const WindowCall& c, const T* windows, const T* residual, T* y, int64_t channels) {
  const int64_t values = c.images * c.height * c.width * channels;
  with_packs<T>(channels, [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    index_of(WindowAxis::of(c.height, c.options).padded() *
             WindowAxis::of(c.width, c.options).padded() * c.images);
    for_each_pack<N>(values / N,
                     Merge<T, kResidual>{windows, residual, y, Divider(channels / N), Dividers(c)});
  });
}

// Most windows touch no end of the map: whole packs of zeros.
struct Mask {
  uint8_t* mask;
  Divider pairs, tokens;  // of a window
  Dividers d;

  MIXPL_DEVICE bool at_end(uint32_t window) const {
    uint32_t across = window;
    const uint32_t down = d.column_windows.split(across);
    return down + 1 == d.row_windows.divisor() || across + 1 == d.column_windows.divisor();
  }
  MIXPL_DEVICE bool apart(uint32_t i) const {
    uint32_t b = i;
    uint32_t across = pairs.split(b);
    const uint32_t down = d.column_windows.split(across);
    uint32_t a_right = tokens.split(b);  // b: second token of the pair
    uint32_t b_right = b;
    const uint32_t a_below = d.size.split(a_right), b_below = d.size.split(b_right);
    return d.rows.wrapped(down, a_below) != d.rows.wrapped(down, b_below) ||
           d.columns.wrapped(across, a_right) != d.columns.wrapped(across, b_right);
  }
  template <int N>
  MIXPL_DEVICE void values(int64_t at) const {
    const uint32_t i = static_cast<uint32_t>(at);
    Vec<uint8_t, N> v{};
    const uint32_t first = pairs.quotient(i), last = pairs.quotient(i + N - 1);
    if (at_end(first) || (first != last && at_end(last)))
      for (int n = 0; n < N; ++n) v[n] = apart(i + n);
    store_vec(mask + at, v);
  }
};

}  // namespace

void window_partition(const WindowCall& c, const Tensor& x, Tensor& windows) {
  const int64_t units = c.channels * size_of(x.dtype()) / 2;
  const auto run = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    for_each_pack<N>(
        windows.numel() * size_of(x.dtype()) / 2 / N,
        Partition{static_cast<const uint16_t*>(x.raw()), static_cast<uint16_t*>(windows.raw()),
                  Divider(units / N), Dividers(c)});
  };
  if (units % 8 == 0)
    run(PackOf<8>());
  else if (units % 2 == 0)
    run(PackOf<2>());
  else
    run(PackOf<1>());
}

void window_merge(const WindowCall& c, const Tensor& windows, const Tensor& residual, Tensor& y) {
  dispatch_floating(y.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (residual.defined())
      merge<T, true>(c, windows.data<T>(), residual.data<T>(), y.data<T>(), c.channels);
    else
      merge<T, false>(c, windows.data<T>(), nullptr, y.data<T>(), c.channels);
  });
}

void window_mask(const WindowCall& c, Tensor& mask) {
  const int64_t tokens = c.options.size * c.options.size;
  index_of(mask.numel());
  for_all_values<16>(mask.numel(), Mask{mask.data<uint8_t>(), Divider(tokens * tokens),
                                        Divider(tokens), Dividers(c)});
}

}  // namespace mixpl::cuda
