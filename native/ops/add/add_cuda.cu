#include "core/cuda/channel_sums.h"
#include "ops/add/add.h"

namespace mixpl::cuda {
namespace {

// Columns that keep a GPU busy with a thread for each pack of them, and rows that are too few to be
// shared.
constexpr int64_t kManyPacks = 1 << 16, kFewRows = 16;

/// N values as f32, in accesses of 16 bytes at most.
template <int N, typename T>
MIXPL_DEVICE void load_floats(const T* p, float (&values)[N]) {
  constexpr int kPart = N < kVecWidth<T> ? N : kVecWidth<T>;
#pragma unroll
  for (int first = 0; first < N; first += kPart) {
    const Vec<T, kPart> v = load_vec<T, kPart>(p + first);
#pragma unroll
    for (int n = 0; n < kPart; ++n) values[first + n] = float(v[n]);
  }
}

template <int N, typename T>
MIXPL_DEVICE void store_floats(T* p, const float (&values)[N]) {
  constexpr int kPart = N < kVecWidth<T> ? N : kVecWidth<T>;
#pragma unroll
  for (int first = 0; first < N; first += kPart) {
    Vec<T, kPart> v;
#pragma unroll
    for (int n = 0; n < kPart; ++n) v[n] = T(values[first + n]);
    store_vec(p + first, v);
  }
}

template <typename A, typename B>
struct Sum {
  const A* a;
  const B* b;
  A* y;
  template <int N>
  MIXPL_DEVICE void add(int64_t i, int64_t at) const {
    Vec<A, N> v = load_vec<A, N>(a + i);
    float other[N];
    load_floats(b + at, other);
#pragma unroll
    for (int n = 0; n < N; ++n) v[n] = A(float(v[n]) + other[n]);
    store_vec(y + i, v);
  }
  template <int N>
  MIXPL_DEVICE void values(int64_t i) const {
    add<N>(i, i);
  }
};

template <typename A, typename B>
struct RepeatedSum {
  Sum<A, B> sum;
  Divider packs;  // of b
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t at = i;
    packs.split(at);
    sum.template add<N>(int64_t{i} * N, int64_t{at} * N);
  }
};

// A thread sums all rows of its columns.
template <typename T, typename B>
struct ColumnSums {
  const T* dy;
  B* db;
  int64_t rows, columns;
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    float sum[N] = {};
#pragma unroll 2
    for (int64_t row = 0; row < rows; ++row) {
      const Vec<T, N> v = load_vec<T, N>(dy + row * columns + int64_t{i} * N);
#pragma unroll
      for (int n = 0; n < N; ++n) sum[n] += float(v[n]);
    }
    store_floats(db + int64_t{i} * N, sum);
  }
};

template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    column_sums_kernel(ChannelBlocks b, const T* __restrict__ dy, float* __restrict__ partial) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  float sum[1][N] = {};
  dy += s.channel;
  for (int64_t p = s.begin; p < s.end; p += kPixelsAtOnce * b.rows) {
    Vec<T, N> v[kPixelsAtOnce] = {};
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u)
      if (p + u * b.rows < s.end) v[u] = load_vec<T, N>(dy + (p + u * b.rows) * b.channels);
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u)
#pragma unroll
      for (int n = 0; n < N; ++n) sum[0][n] += float(v[u][n]);
  }
  add_rows(b, s, sum, partial + int64_t{blockIdx.x} * b.channels);
}

template <typename B>
struct PutSum {
  B* db;
  MIXPL_DEVICE void operator()(int64_t, int64_t i, double sum) const { db[i] = B(float(sum)); }
};

}  // namespace

void add_forward(const Tensor& a, const Tensor& b, Tensor& y) {
  dispatch_floating(a.dtype(), [&](auto tag) {
    using A = decltype(tag);
    dispatch_floating(b.dtype(), [&](auto other) {
      using B = decltype(other);
      const Sum<A, B> sum{a.data<A>(), b.data<B>(), y.data<A>()};
      if (a.numel() == b.numel()) return for_all_values<kVecWidth<A>>(a.numel(), sum);
      with_packs<A>(b.numel(), [&](auto pack) {
        constexpr int N = decltype(pack)::value;
        for_each_pack<N>(a.numel() / N, RepeatedSum<A, B>{sum, Divider(b.numel() / N)});
      });
    });
  });
}

void add_backward(const Tensor& dy, Tensor& db) {
  const int64_t columns = db.numel(), rows = columns ? dy.numel() / columns : 0;
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    dispatch_floating(db.dtype(), [&](auto other) {
      using B = decltype(other);
      const T* in = dy.data<T>();
      B* out = db.data<B>();
      with_packs<T>(columns, [&](auto pack) {
        constexpr int N = decltype(pack)::value;
        if (rows <= kFewRows || columns / N >= kManyPacks)
          return for_each_pack<N>(columns / N, ColumnSums<T, B>{in, out, rows, columns});
        const ChannelBlocks b(1, rows, columns, N);
        const Tensor partial = Tensor::empty({b.chunks, columns}, DType::f32, dy.device());
        launch(column_sums_kernel<N, T>, b.grid(), kChannelThreads, 0, b, in,
               partial.data<float>());
        merge_chunks(b, partial.data<float>(), columns, PutSum<B>{out});
      });
    });
  });
}

}  // namespace mixpl::cuda
