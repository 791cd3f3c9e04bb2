#include "ops/channel_norm/channel_norm_kernels.h"

namespace mixpl::cuda {
namespace {

constexpr int kGroupThreads = 128;

// Sums of x - shift and of its square per chunk and channel, where shift is the image's first
// pixel: no cancellation when the mean is large.
template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    moments_kernel(ChannelBlocks b, const T* __restrict__ x, float* __restrict__ partial) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  x += s.image * b.pixels * b.channels + s.channel;
  float shift[N], sum[2][N] = {};
  if (s.begin < s.end) {
    const Vec<T, N> first = load_vec<T, N>(x);
    for (int n = 0; n < N; ++n) shift[n] = float(first[n]);
  }
  for (int64_t p = s.begin; p < s.end; p += kPixelsAtOnce * b.rows) {
    Vec<T, N> v[kPixelsAtOnce];
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u)
      if (p + u * b.rows < s.end) v[u] = load_vec<T, N>(x + (p + u * b.rows) * b.channels);
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u) {
      if (p + u * b.rows >= s.end) continue;
      for (int n = 0; n < N; ++n) {
        const float d = float(v[u][n]) - shift[n];
        sum[0][n] += d;
        sum[1][n] = fmaf(d, d, sum[1][n]);
      }
    }
  }
  add_rows(b, s, sum, partial + blockIdx.x * 2 * b.channels);
}

// A block for each image and group. Sums around the shifts of single channels become sums around
// that of the group's first, in f64. `counted`: pixels that count, where not all do; the others
// equal the shift, which adds nothing to a group of one channel.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kGroupThreads)
    group_moments_kernel(ChannelBlocks b, int64_t groups, const T* x, const float* partial,
                         const float* counted, float* mean, float* variance) {
  const int64_t image = blockIdx.x / groups, size = b.channels / groups;
  const int64_t first = blockIdx.x % groups * size;
  const T* shift = x + image * b.pixels * b.channels + first;
  const double origin = float(shift[0]);
  double sum = 0, square = 0;
  for (int64_t i = threadIdx.x; i < b.chunks * size; i += kGroupThreads) {
    const int64_t chunk = i / size, c = i % size;
    const float* sums = partial + (image * b.chunks + chunk) * 2 * b.channels + first + c;
    const int64_t rest = b.pixels - chunk * b.chunk;
    const double pixels = double(rest < b.chunk ? rest : b.chunk);
    const double d = float(shift[c]) - origin, s = sums[0], q = sums[b.channels];
    sum += s + pixels * d;
    square += q + d * (2 * s + pixels * d);
  }
  sum = block_sum(sum);
  square = block_sum(square);
  if (threadIdx.x > 0) return;
  const double count = pixels_of(b.pixels, counted) * double(size), average = sum / count;
  const double v = square / count - average * average;
  mean[blockIdx.x] = float(origin + average);
  variance[blockIdx.x] = v < 0 ? 0.0f : float(v);
}

struct Occupied {
  const int32_t* owners;
  MIXPL_DEVICE float operator()(int64_t i) const { return owners[i] >= 0 ? 1.0f : 0.0f; }
};

struct Rstd {
  float* v;
  float eps;
  MIXPL_DEVICE void operator()(int64_t i) const { v[i] = rstd_of(v[i], eps); }
};

template <int N, bool kResidual, bool kRelu, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    forward_kernel(ChannelBlocks b, NormParameters parameters, const T* __restrict__ x,
                   const T* __restrict__ residual, T* __restrict__ y) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  if (s.begin >= s.end) return;
  const Affine<N> a(s, parameters);
  const int64_t base = s.image * b.pixels * b.channels + s.channel;
  for (int64_t p = s.begin; p < s.end; p += kPixelsAtOnce * b.rows) {
    Vec<T, N> v[kPixelsAtOnce], add[kPixelsAtOnce];
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u) {
      if (p + u * b.rows >= s.end) continue;
      const int64_t at = base + (p + u * b.rows) * b.channels;
      v[u] = load_vec<T, N>(x + at);
      if constexpr (kResidual) add[u] = load_vec<T, N>(residual + at);
    }
#pragma unroll
    for (int u = 0; u < kPixelsAtOnce; ++u) {
      if (p + u * b.rows >= s.end) continue;
      Vec<T, N> out;
      for (int n = 0; n < N; ++n) {
        float value = normalized(float(v[u][n]), a.mean[n], a.scale[n], a.shift[n]);
        if constexpr (kResidual) value += float(add[u][n]);
        if constexpr (kRelu) value = value < 0.0f ? 0.0f : value;
        out[n] = T(value);
      }
      store_vec(y + base + (p + u * b.rows) * b.channels, out);
    }
  }
}

}  // namespace

void norm_moments(const NormForward& f, Tensor& mean, Tensor& variance) {
  const NormView& view = f.view;
  const Tensor& x = f.x;
  float* counted = nullptr;
  if (f.owners.defined()) {
    const int64_t rows = f.owners.numel();
    counted = f.count.data<float>();
    reduce_sum(rows, Occupied{f.owners.data<int32_t>()}, counted,
               static_cast<float>(view.pixels / rows));
  }
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (counted) fill_empty<true, T>(f, x);
    with_packs<T>(view.channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      const ChannelBlocks b = blocks_of(view, N);
      const Tensor partial =
          Tensor::empty({view.images, b.chunks, 2, view.channels}, DType::f32, x.device());
      launch(moments_kernel<N, T>, b.grid(), kChannelThreads, 0, b, x.data<T>(),
             partial.data<float>());
      launch(group_moments_kernel<T>, index_of(view.stats()), kGroupThreads, 0, b, view.groups,
             x.data<T>(), partial.data<float>(), counted, mean.data<float>(),
             variance.data<float>());
    });
  });
}

void norm_rstd(float eps, Tensor& variance) {
  for_each(variance.numel(), Rstd{variance.data<float>(), eps});
}

void norm_forward(const NormForward& f, Tensor& y) {
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(f.view.channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      const ChannelBlocks b = blocks_of(f.view, N);
      const bool add = f.residual.defined();
      const auto kernel =
          add ? (f.relu ? forward_kernel<N, true, true, T> : forward_kernel<N, true, false, T>)
              : (f.relu ? forward_kernel<N, false, true, T> : forward_kernel<N, false, false, T>);
      launch(kernel, b.grid(), kChannelThreads, 0, b, NormParameters(f), f.x.data<T>(),
             add ? f.residual.data<T>() : nullptr, y.data<T>());
    });
  });
}

void norm_by_image(const NormForward& f, float eps, Tensor& mean, Tensor& rstd, Tensor& y) {
  norm_moments(f, mean, rstd);
  norm_rstd(eps, rstd);
  norm_forward(f, y);
}

}  // namespace mixpl::cuda
