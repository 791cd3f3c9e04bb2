#include "core/cuda/channel_sums.h"
#include "ops/global_average_pool/global_average_pool.h"

namespace mixpl::cuda {
namespace {

template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    sums_kernel(ChannelBlocks b, const T* __restrict__ x, float* __restrict__ partial) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  x += s.image * b.pixels * b.channels + s.channel;
  float sum[1][N] = {};
#pragma unroll 4
  for (int64_t p = s.begin; p < s.end; p += b.rows) {
    const Vec<T, N> v = load_vec<T, N>(x + p * b.channels);
    for (int n = 0; n < N; ++n) sum[0][n] += float(v[n]);
  }
  add_rows(b, s, sum, partial + blockIdx.x * b.channels);
}

template <typename T>
struct Mean {
  const double* sums;
  T* y;
  double pixels;
  MIXPL_DEVICE void operator()(int64_t i) const { y[i] = T(static_cast<float>(sums[i] / pixels)); }
};

template <typename T>
struct Spread {
  const T* dy;
  T* dx;
  Divider packs, pixels;  // of a pixel, of an image
  float scale;
  template <int N>
  MIXPL_DEVICE void pack(uint32_t i) const {
    uint32_t channel = i;
    const uint32_t image = pixels.quotient(packs.split(channel));
    Vec<T, N> v = load_vec<T, N>(dy + (int64_t{image} * packs.divisor() + channel) * N);
    for (int n = 0; n < N; ++n) v[n] = T(float(v[n]) * scale);
    store_vec(dx + int64_t{i} * N, v);
  }
};

}  // namespace

void global_average_pool_forward(const Tensor& x, Tensor& y) {
  const int64_t images = x.size(0), pixels = x.size(1) * x.size(2), channels = x.size(3);
  if (images * channels == 0) return;
  dispatch_floating(x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      const ChannelBlocks b(images, pixels, channels, N);
      const Tensor partial = Tensor::empty({images, b.chunks, channels}, DType::f32, x.device());
      const Tensor sums = scratch(images * channels * static_cast<int64_t>(sizeof(double)));
      auto* total = static_cast<double*>(sums.raw());
      launch(sums_kernel<N, T>, b.grid(), kChannelThreads, 0, b, x.data<T>(),
             partial.data<float>());
      merge_chunks(b, partial.data<float>(), channels, total);
      for_each(images * channels, Mean<T>{total, y.data<T>(), static_cast<double>(pixels)});
    });
  });
}

void global_average_pool_backward(const Tensor& dy, Tensor& dx) {
  const int64_t pixels = dx.size(1) * dx.size(2), channels = dx.size(3);
  dispatch_floating(dy.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(channels, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      for_each_pack<N>(dx.numel() / N,
                       Spread<T>{dy.data<T>(), dx.data<T>(), Divider(channels / N),
                                 Divider(pixels), 1.0f / static_cast<float>(pixels)});
    });
  });
}

}  // namespace mixpl::cuda
