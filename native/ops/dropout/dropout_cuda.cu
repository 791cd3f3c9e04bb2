#include "core/cuda/packs.h"
#include "ops/dropout/dropout.h"
#include "ops/dropout/dropout_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Drop {
  DropoutMask mask;
  const T* x;
  T* y;  // may be x
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    Vec<T, N> v = load_vec<T, N>(x + i);
    if constexpr (N == 1) {
      v[0] = T(mask.apply(float(v[0]), mask.word(static_cast<uint64_t>(i))));
    } else {
      // i is a multiple of N, which is 4 or 8: whole blocks of words.
#pragma unroll
      for (int n = 0; n < N; n += 4) {
        const auto words = mask.random.block(static_cast<uint64_t>(i + n) / 4);
#pragma unroll
        for (int k = 0; k < 4; ++k) v[n + k] = T(mask.apply(float(v[n + k]), words[k]));
      }
    }
    store_vec(y + i, v);
  }
};

// A draw for each run of packs.
template <typename T>
struct DropRuns {
  DropoutMask mask;
  Divider packs;  // of a run
  const T* x;
  T* y;
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    const uint32_t word = mask.word(packs.quotient(i));
    Vec<T, N> v{};
    if (word >= mask.threshold) v = load_vec<T, N>(x + int64_t{i} * N);
#pragma unroll
    for (int n = 0; n < N; ++n) v[n] = T(mask.apply(float(v[n]), word));
    store_vec(y + int64_t{i} * N, v);
  }
};

}  // namespace

void dropout_apply(const Tensor& x, float p, const Philox& random, int64_t run, Tensor& y) {
  const DropoutMask mask = DropoutMask::of(p, random);
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    if (run == 1) return for_all_values<kVecWidth<T>>(x.numel(), Drop<T>{mask, in, out});
    with_packs<T>(run, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(x.numel() / N, DropRuns<T>{mask, Divider(run / N), in, out});
    });
  });
}

}  // namespace mixpl::cuda
