#include "ops/channel_norm/channel_norm_kernels.h"

namespace mixpl::cuda {
namespace {

// Fewer than forward: each has two or three tensors to read.
constexpr int kAtOnce = 2;

// dresidual and dx may each be dout: a thread reads its values before it overwrites them.
template <typename T>
struct BackwardTensors {
  const T *x, *y, *dout;  // y where the mask is the output, else null
  T *dresidual, *dx;
};

template <NormMask kMask, int N, typename T>
MIXPL_DEVICE float behind_relu(const Affine<N>& a, int n, float x, float y, float g) {
  if constexpr (kMask == NormMask::output) return y > 0.0f ? g : 0.0f;
  if constexpr (kMask == NormMask::recompute)
    return normalized(x, a.mean[n], a.scale[n], a.shift[n]) > 0.0f ? g : 0.0f;
  return g;
}

// f(index, x, y, dout) for the packs of this thread, kAtOnce of them loaded together.
template <NormMask kMask, int N, typename T, typename F>
MIXPL_DEVICE void for_packs(const ChannelBlocks& b, const ChannelShare& s,
                            const BackwardTensors<T>& t, F&& f) {
  const int64_t base = s.image * b.pixels * b.channels + s.channel;
  for (int64_t p = s.begin; p < s.end; p += kAtOnce * b.rows) {
    Vec<T, N> x[kAtOnce], y[kAtOnce], g[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (p + u * b.rows >= s.end) continue;
      const int64_t at = base + (p + u * b.rows) * b.channels;
      x[u] = load_vec<T, N>(t.x + at);
      g[u] = load_vec<T, N>(t.dout + at);
      if constexpr (kMask == NormMask::output) y[u] = load_vec<T, N>(t.y + at);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u)
      if (p + u * b.rows < s.end) f(base + (p + u * b.rows) * b.channels, x[u], y[u], g[u]);
  }
}

// Sums of g and of g * (x - mean) per chunk and channel; writes g to dresidual when there is one.
template <NormMask kMask, bool kStore, int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    backward_sums_kernel(ChannelBlocks b, NormParameters parameters, BackwardTensors<T> t,
                         float* partial) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  float sum[2][N] = {};
  if (s.begin < s.end) {
    const Affine<N> a(s, parameters);
    for_packs<kMask, N>(b, s, t, [&](int64_t at, const auto& x, const auto& y, const auto& dout) {
      Vec<T, N> out;
      for (int n = 0; n < N; ++n) {
        const float v = float(x[n]), kept = kMask == NormMask::output ? float(y[n]) : 0.0f;
        const float g = behind_relu<kMask, N, T>(a, n, v, kept, float(dout[n]));
        sum[0][n] += g;
        sum[1][n] = fmaf(g, v - a.mean[n], sum[1][n]);
        out[n] = T(g);
      }
      if constexpr (kStore) store_vec(t.dresidual + at, out);
    });
  }
  add_rows(b, s, sum, partial + int64_t{blockIdx.x} * 2 * b.channels);
}

// From sums [images, 2, channels]: gradients of the parameters, over all images.
struct ParameterGradients {
  const double* sums;
  NormParameters parameters;
  int64_t images, channels;
  float *dgamma, *dbeta;

  MIXPL_DEVICE void operator()(int64_t c) const {
    double g = 0, gx = 0;
    for (int64_t i = 0; i < images; ++i) {
      const double* sum = sums + i * 2 * channels + c;
      g += sum[0];
      gx += sum[channels] * parameters.rstd[i * parameters.groups + c / parameters.size];
    }
    if (dbeta) dbeta[c] = float(g);
    if (dgamma) dgamma[c] = float(gx);
  }
};

// And what the statistics contribute to dx, a warp for each image and group.
template <typename Unused = void>
MIXPL_KERNEL slopes_kernel(int64_t stats, int64_t pixels, const float* counted, int64_t channels,
                           NormParameters p, const double* sums, NormSlopes* slopes) {
  const int64_t stat = thread_index() / 32;
  if (stat >= stats) return;
  const int64_t image = stat / p.groups, first = stat % p.groups * p.size;
  double g = 0, gd = 0;
  for (int64_t c = first + lane(); c < first + p.size; c += 32) {
    const double* sum = sums + image * 2 * channels + c;
    g += p.gamma[c] * sum[0];
    gd += p.gamma[c] * sum[channels];
  }
  g = warp_sum(g);
  gd = warp_sum(gd);
  if (lane() == 0)
    slopes[stat] = norm_slopes(p.rstd[stat], g, gd, pixels_of(pixels, counted) * double(p.size));
}

// slopes: null when the statistics are constants.
template <NormMask kMask, int N, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads)
    backward_kernel(ChannelBlocks b, NormParameters parameters, BackwardTensors<T> t,
                    const NormSlopes* slopes) {
  const ChannelShare s = ChannelShare::of(b, PackOf<N>());
  if (s.begin >= s.end) return;
  const Affine<N> a(s, parameters);
  float slope[N] = {}, offset[N] = {};
  if (slopes)
    for (int n = 0; n < N; ++n) {
      const NormSlopes own =
          slopes[s.image * parameters.groups + (s.channel + n) / parameters.size];
      slope[n] = own.slope;
      offset[n] = own.offset;
    }
  for_packs<kMask, N>(b, s, t, [&](int64_t at, const auto& x, const auto& y, const auto& dout) {
    Vec<T, N> dx;
    for (int n = 0; n < N; ++n) {
      const float v = float(x[n]), kept = kMask == NormMask::output ? float(y[n]) : 0.0f;
      const float g = behind_relu<kMask, N, T>(a, n, v, kept, float(dout[n]));
      dx[n] = T(norm_input_gradient(g, v - a.mean[n], a.scale[n], slope[n], offset[n]));
    }
    store_vec(t.dx + at, dx);
  });
}

template <NormMask kMask, int N, typename T>
void backward(NormBackward& norm) {
  const NormForward& f = norm.forward;
  const NormView& view = f.view;
  const ChannelBlocks b = blocks_of(view, N);
  const NormParameters parameters(f);
  const auto pointer = [](const Tensor& t) { return t.defined() ? t.data<T>() : nullptr; };
  const auto numbers = [](const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; };
  BackwardTensors<T> t{pointer(f.x), kMask == NormMask::output ? pointer(norm.y) : nullptr,
                       pointer(norm.dout), pointer(norm.dresidual), pointer(norm.dx)};
  const bool live_dx = t.dx && !norm.fixed_stats;
  const bool parameters_too = norm.dgamma.defined() || norm.dbeta.defined();
  Tensor slopes;
  if (live_dx || parameters_too || t.dresidual) {
    const int64_t sums = 2 * view.channels;
    const Tensor partial = Tensor::empty({view.images, b.chunks, sums}, DType::f32, f.x.device());
    launch(t.dresidual ? backward_sums_kernel<kMask, true, N, T>
                       : backward_sums_kernel<kMask, false, N, T>,
           b.grid(), kChannelThreads, 0, b, parameters, t, partial.data<float>());
    if (live_dx || parameters_too) {
      const Tensor merged = scratch(view.images * sums * static_cast<int64_t>(sizeof(double)));
      auto* total = static_cast<double*>(merged.raw());
      merge_chunks(b, partial.data<float>(), sums, total);
      if (parameters_too)
        for_each(view.channels, ParameterGradients{total, parameters, view.images, view.channels,
                                                   numbers(norm.dgamma), numbers(norm.dbeta)});
      if (live_dx) {
        slopes = scratch(view.stats() * static_cast<int64_t>(sizeof(NormSlopes)));
        launch(slopes_kernel<>, index_of((view.stats() + 3) / 4), 128, 0, view.stats(), view.pixels,
               numbers(f.count), view.channels, parameters, total,
               static_cast<NormSlopes*>(slopes.raw()));
      }
    }
  }
  if (!t.dx) return;
  const auto* own = slopes.defined() ? static_cast<const NormSlopes*>(slopes.raw()) : nullptr;
  // With a residual, the gradient behind the ReLU is already in dresidual: read it instead.
  if (t.dresidual) t.dout = t.dresidual;
  const auto kernel =
      t.dresidual ? backward_kernel<NormMask::none, N, T> : backward_kernel<kMask, N, T>;
  launch(kernel, b.grid(), kChannelThreads, 0, b, parameters, t, own);
  // The statistics' part of dx is not theirs.
  if (f.owners.defined()) fill_empty<false, T>(f, norm.dx);
}

template <int N, typename T>
void backward_of(NormBackward& norm) {
  if (!norm.forward.relu) return backward<NormMask::none, N, T>(norm);
  if (norm.forward.residual.defined()) return backward<NormMask::output, N, T>(norm);
  backward<NormMask::recompute, N, T>(norm);
}

}  // namespace

void norm_backward(NormBackward& norm) {
  dispatch_floating(norm.forward.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(norm.forward.view.channels,
                  [&](auto pack) { backward_of<decltype(pack)::value, T>(norm); });
  });
}

}  // namespace mixpl::cuda
