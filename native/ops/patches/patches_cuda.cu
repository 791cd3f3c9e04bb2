#include "core/cuda/packs.h"
#include "ops/patches/patches.h"

namespace mixpl::cuda {
namespace {

// In units of two bytes. A row of a patch is a run of neighbours in both tensors.
struct Patches {
  uint16_t *x, *y;
  Divider run, size, across, down;  // packs of a row of a patch; patches of a row, rows of them
  int64_t height, row;              // of x; packs of its row
};

struct Forward {
  Patches p;
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;
    uint32_t line = p.run.split(column);
    uint32_t patch = p.size.split(line);
    uint32_t row = p.across.split(patch);
    const uint32_t image = p.down.split(row);
    const int64_t y = int64_t{row} * p.size.divisor() + line,
                  at = int64_t{patch} * p.run.divisor() + column;
    Vec<uint16_t, N> v{};
    if (y < p.height && at < p.row)
      v = load_vec<uint16_t, N>(p.x + ((image * p.height + y) * p.row + at) * N);
    store_vec(p.y + int64_t{i} * N, v);
  }
};

struct Backward {
  Patches p;
  Divider row, height;  // packs of x's row, its rows
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t column = i;
    uint32_t line = row.split(column);
    const uint32_t image = height.split(line);
    const uint32_t patch = p.run.split(column), of_row = p.size.split(line);
    const int64_t at =
        ((((int64_t{image} * p.down.divisor() + of_row) * p.across.divisor() + patch) *
              p.size.divisor() +
          line) *
             p.run.divisor() +
         column) *
        N;
    store_vec(p.x + int64_t{i} * N, load_vec<uint16_t, N>(p.y + at));
  }
};

// f(PackOf<N>(), Patches) with the widest packs of which rows of both tensors are made.
template <typename F>
void with_patches(const Tensor& x, const Tensor& y, int64_t size, F&& f) {
  const int64_t channels = x.size(3) * size_of(x.dtype()) / 2, row = channels * x.size(2),
                run = channels * size;
  const auto go = [&](auto pack) {
    constexpr int N = decltype(pack)::value;
    index_of(y.numel() * size_of(y.dtype()) / 2 / N);
    f(pack,
      Patches{static_cast<uint16_t*>(x.raw()), static_cast<uint16_t*>(y.raw()), Divider(run / N),
              Divider(size), Divider(y.size(2)), Divider(y.size(1)), x.size(1), row / N});
  };
  // A row of x may end within a patch's, there at a whole pack, too.
  if ((row | run) % 8 == 0)
    go(PackOf<8>());
  else if ((row | run) % 4 == 0)
    go(PackOf<4>());
  else if ((row | run) % 2 == 0)
    go(PackOf<2>());
  else
    go(PackOf<1>());
}

}  // namespace

void patches_forward(const Tensor& x, int64_t size, Tensor& y) {
  with_patches(x, y, size, [&](auto pack, const Patches& p) {
    constexpr int N = decltype(pack)::value;
    for_each_pack<N>(y.numel() * size_of(y.dtype()) / 2 / N, Forward{p});
  });
}

void patches_backward(const Tensor& dy, int64_t size, Tensor& dx) {
  with_patches(dx, dy, size, [&](auto pack, const Patches& p) {
    constexpr int N = decltype(pack)::value;
    for_each_pack<N>(dx.numel() * size_of(dx.dtype()) / 2 / N,
                     Backward{p, Divider(p.row), Divider(dx.size(1))});
  });
}

}  // namespace mixpl::cuda
