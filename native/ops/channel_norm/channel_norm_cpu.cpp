#include <vector>

#include "core/parallel.h"
#include "core/simd.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_math.h"

namespace mixpl::cpu {
namespace {

using simd::f32x8;

// Pixels per partial sum. Fixed, so the order of additions does not depend on threads.
constexpr int64_t kChunk = 256;
// Pixels that are summed at once: as many streams as the prefetcher follows, and the sums are
// loaded and stored a quarter as often.
constexpr int64_t kRows = 4;

int64_t chunks_of(const NormView& view) { return (view.pixels + kChunk - 1) / kChunk; }

// f(image, chunk, first pixel, pixels) over all chunks of all images.
template <typename F>
void for_each_chunk(const NormView& view, F&& f) {
  const int64_t chunks = chunks_of(view);
  parallel_for(view.images * chunks, int64_t{1}, [&](int64_t i) {
    const int64_t chunk = i % chunks, first = chunk * kChunk;
    f(i / chunks, chunk, first, std::min(kChunk, view.pixels - first));
  });
}

// Adds sum and sum of squares of x - shift over `rows` pixels, channel by channel.
template <int kFixedRows, typename T>
inline void add_moments(const T* x, int64_t channels, const float* shift, float* sum,
                        float* square) {
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    const f32x8 k = simd::load(shift + c);
    f32x8 s = simd::load(sum + c), q = simd::load(square + c);
    for (int r = 0; r < kFixedRows; ++r) {
      const f32x8 d = simd::load(x + r * channels + c) - k;
      s += d;
      q += d * d;
    }
    simd::store(sum + c, s);
    simd::store(square + c, q);
  }
  for (; c < channels; ++c)
    for (int r = 0; r < kFixedRows; ++r) {
      const float d = float(x[r * channels + c]) - shift[c];
      sum[c] += d;
      square[c] += d * d;
    }
}

// Mean and centred second moment per channel of one chunk of pixels.
template <typename T>
void chunk_moments(const T* x, int64_t pixels, int64_t channels, float* mean, float* m2,
                   float* shift) {
  for (int64_t c = 0; c < channels; ++c) {
    shift[c] = float(x[c]);
    mean[c] = m2[c] = 0;
  }
  int64_t p = 0;
  for (; p + kRows <= pixels; p += kRows)
    add_moments<kRows>(x + p * channels, channels, shift, mean, m2);
  for (; p < pixels; ++p) add_moments<1>(x + p * channels, channels, shift, mean, m2);
  const float inverse = 1.0f / static_cast<float>(pixels);
  for (int64_t c = 0; c < channels; ++c) {
    const float average = mean[c] * inverse;
    m2[c] = std::max(0.0f, m2[c] - mean[c] * average);
    mean[c] = shift[c] + average;
  }
}

// Per (image, channel) constants of the affine map, from per-group statistics.
struct ChannelTable {
  std::vector<float> mean, scale, rstd;
  ChannelTable(const NormForward& f) {
    const auto [images, pixels, channels, groups] = f.view;
    const float *m = f.mean.data<float>(), *r = f.rstd.data<float>(), *g = f.gamma.data<float>();
    mean.resize(images * channels);
    scale.resize(images * channels);
    rstd.resize(images * channels);
    for (int64_t n = 0; n < images; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = n * channels + c, stat = n * groups + c / f.view.group_size();
        mean[i] = m[stat];
        rstd[i] = r[stat];
        scale[i] = r[stat] * g[c];
      }
  }
};

template <bool kResidual, bool kRelu, typename T>
void forward_rows(const T* __restrict x, const T* __restrict residual, T* __restrict y,
                  int64_t rows, int64_t channels, const float* __restrict mean,
                  const float* __restrict scale, const float* __restrict shift) {
  for (int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    const T* add = kResidual ? residual + r * channels : nullptr;
    int64_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      f32x8 v = normalized(simd::load(x + c), simd::load(mean + c), simd::load(scale + c),
                           simd::load(shift + c));
      if constexpr (kResidual) v += simd::load(add + c);
      if constexpr (kRelu) v = v < 0.0f ? f32x8{} : v;
      simd::store(y + c, v);
    }
    for (; c < channels; ++c) {
      float v = normalized(float(x[c]), mean[c], scale[c], shift[c]);
      if constexpr (kResidual) v += float(add[c]);
      if constexpr (kRelu) v = v < 0.0f ? 0.0f : v;
      y[c] = T(v);
    }
  }
}

using Mask = NormMask;

template <typename T>
struct BackwardRows {
  const T *x, *dout, *y;
  T *dresidual, *dx;
  const float *mean, *scale, *shift;
};

// The gradient behind the ReLU, eight channels or one.
template <Mask kMask, typename T>
inline f32x8 masked8(const BackwardRows<T>& b, int64_t i, int64_t c) {
  const f32x8 g = simd::load(b.dout + i);
  if constexpr (kMask == Mask::output) return simd::keep(simd::load(b.y + i) > 0.0f, g);
  if constexpr (kMask == Mask::recompute) {
    const f32x8 v = normalized(simd::load(b.x + i), simd::load(b.mean + c), simd::load(b.scale + c),
                               simd::load(b.shift + c));
    return simd::keep(v > 0.0f, g);
  }
  return g;
}
template <Mask kMask, typename T>
inline float masked1(const BackwardRows<T>& b, int64_t i, int64_t c) {
  const float g = float(b.dout[i]);
  if constexpr (kMask == Mask::output) return float(b.y[i]) > 0.0f ? g : 0.0f;
  if constexpr (kMask == Mask::recompute)
    return normalized(float(b.x[i]), b.mean[c], b.scale[c], b.shift[c]) > 0.0f ? g : 0.0f;
  return g;
}

// Adds sum of g and of g * (x - mean) per channel; writes g to dresidual when there is one.
template <int kFixedRows, Mask kMask, bool kStore, typename T>
inline void add_products(const BackwardRows<T>& b, int64_t base, int64_t channels, float* sum,
                         float* product) {
  int64_t c = 0;
  for (; c + 8 <= channels; c += 8) {
    f32x8 s = simd::load(sum + c), q = simd::load(product + c);
    const f32x8 mean = simd::load(b.mean + c);
    for (int r = 0; r < kFixedRows; ++r) {
      const int64_t i = base + r * channels + c;
      const f32x8 g = masked8<kMask>(b, i, c);
      s += g;
      q += g * (simd::load(b.x + i) - mean);
      if constexpr (kStore) simd::store(b.dresidual + i, g);
    }
    simd::store(sum + c, s);
    simd::store(product + c, q);
  }
  for (; c < channels; ++c)
    for (int r = 0; r < kFixedRows; ++r) {
      const int64_t i = base + r * channels + c;
      const float g = masked1<kMask>(b, i, c);
      sum[c] += g;
      product[c] += g * (float(b.x[i]) - b.mean[c]);
      if constexpr (kStore) b.dresidual[i] = T(g);
    }
}

template <Mask kMask, bool kStore, typename T>
void backward_sums(const BackwardRows<T>& b, int64_t first, int64_t pixels, int64_t channels,
                   float* sum, float* product) {
  for (int64_t c = 0; c < channels; ++c) sum[c] = product[c] = 0;
  int64_t p = 0;
  for (; p + kRows <= pixels; p += kRows)
    add_products<kRows, kMask, kStore>(b, (first + p) * channels, channels, sum, product);
  for (; p < pixels; ++p)
    add_products<1, kMask, kStore>(b, (first + p) * channels, channels, sum, product);
}

template <Mask kMask, typename T>
void backward_rows(const BackwardRows<T>& b, int64_t first, int64_t pixels, int64_t channels,
                   const float* slope, const float* offset) {
  for (int64_t p = first; p < first + pixels; ++p) {
    int64_t c = 0;
    for (; c + 8 <= channels; c += 8) {
      const int64_t i = p * channels + c;
      const f32x8 g = masked8<kMask>(b, i, c), d = simd::load(b.x + i) - simd::load(b.mean + c);
      simd::store(b.dx + i, norm_input_gradient(g, d, simd::load(b.scale + c),
                                                simd::load(slope + c), simd::load(offset + c)));
    }
    for (; c < channels; ++c) {
      const int64_t i = p * channels + c;
      const float g = masked1<kMask>(b, i, c), d = float(b.x[i]) - b.mean[c];
      b.dx[i] = T(norm_input_gradient(g, d, b.scale[c], slope[c], offset[c]));
    }
  }
}

template <Mask kMask, typename T>
void backward_masked(NormBackward& norm) {
  const NormForward& f = norm.forward;
  const NormView view = f.view;
  const int64_t channels = view.channels, chunks = chunks_of(view);
  const ChannelTable table(f);
  BackwardRows<T> all{};
  all.x = f.x.data<T>();
  all.dout = norm.dout.data<T>();
  all.y = kMask == Mask::output ? norm.y.data<T>() : nullptr;
  all.dresidual = norm.dresidual.defined() ? norm.dresidual.data<T>() : nullptr;
  all.dx = norm.dx.defined() ? norm.dx.data<T>() : nullptr;
  all.shift = f.beta.data<float>();
  const auto rows_of = [&](int64_t image) {
    BackwardRows<T> b = all;
    const int64_t at = image * view.pixels * channels;
    b.x += at;
    b.dout += at;
    if (b.y) b.y += at;
    if (b.dresidual) b.dresidual += at;
    if (b.dx) b.dx += at;
    b.mean = table.mean.data() + image * channels;
    b.scale = table.scale.data() + image * channels;
    return b;
  };

  std::vector<float> slope(view.images * channels, 0.0f), offset(view.images * channels, 0.0f);
  const bool live_dx = norm.dx.defined() && !norm.fixed_stats;
  if (live_dx || norm.dgamma.defined() || norm.dbeta.defined() || norm.dresidual.defined()) {
    std::vector<float> partial(view.images * chunks * 2 * channels);
    for_each_chunk(view, [&](int64_t image, int64_t chunk, int64_t first, int64_t pixels) {
      float* sum = partial.data() + (image * chunks + chunk) * 2 * channels;
      const auto sums =
          all.dresidual ? backward_sums<kMask, true, T> : backward_sums<kMask, false, T>;
      sums(rows_of(image), first, pixels, channels, sum, sum + channels);
    });
    std::vector<double> dgamma(channels, 0.0), dbeta(channels, 0.0), sum(2 * channels);
    const float* gamma = f.gamma.data<float>();
    for (int64_t n = 0; n < view.images; ++n) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t k = 0; k < chunks; ++k)
        for (int64_t c = 0; c < 2 * channels; ++c)
          sum[c] += partial[(n * chunks + k) * 2 * channels + c];
      const float* rstd = table.rstd.data() + n * channels;
      for (int64_t c = 0; c < channels; ++c) {
        dbeta[c] += sum[c];
        dgamma[c] += sum[channels + c] * rstd[c];
      }
      if (!live_dx) continue;
      const int64_t size = view.group_size();
      const double count = static_cast<double>(size) * static_cast<double>(view.pixels);
      for (int64_t g = 0; g < view.groups; ++g) {
        double sum_g = 0, sum_gd = 0;
        for (int64_t c = g * size; c < (g + 1) * size; ++c) {
          sum_g += gamma[c] * sum[c];
          sum_gd += gamma[c] * sum[channels + c];
        }
        const NormSlopes slopes = norm_slopes(rstd[g * size], sum_g, sum_gd, count);
        for (int64_t c = g * size; c < (g + 1) * size; ++c) {
          offset[n * channels + c] = slopes.offset;
          slope[n * channels + c] = slopes.slope;
        }
      }
    }
    if (norm.dgamma.defined())
      for (int64_t c = 0; c < channels; ++c)
        norm.dgamma.data<float>()[c] = static_cast<float>(dgamma[c]);
    if (norm.dbeta.defined())
      for (int64_t c = 0; c < channels; ++c)
        norm.dbeta.data<float>()[c] = static_cast<float>(dbeta[c]);
  }
  if (!norm.dx.defined()) return;
  // With a residual, the masked gradient is already in dresidual: read it instead.
  const bool masked = norm.dresidual.defined();
  for_each_chunk(view, [&](int64_t image, int64_t, int64_t first, int64_t pixels) {
    BackwardRows<T> b = rows_of(image);
    const float *k = slope.data() + image * channels, *o = offset.data() + image * channels;
    if (masked) {
      b.dout = b.dresidual;
      backward_rows<Mask::none>(b, first, pixels, channels, k, o);
    } else {
      backward_rows<kMask>(b, first, pixels, channels, k, o);
    }
  });
}

}  // namespace

void norm_moments(const NormForward& norm, Tensor& mean, Tensor& variance) {
  const NormView& view = norm.view;
  const Tensor& x = norm.x;
  const int64_t channels = view.channels, chunks = chunks_of(view), size = view.group_size();
  std::vector<float> partial(view.images * chunks * 2 * channels);
  dispatch_floating(x.dtype(), [&](auto tag) {
    const auto* data = x.data<decltype(tag)>();
    for_each_chunk(view, [&](int64_t image, int64_t chunk, int64_t first, int64_t pixels) {
      std::vector<float> shift(channels);
      float* out = partial.data() + (image * chunks + chunk) * 2 * channels;
      chunk_moments(data + (image * view.pixels + first) * channels, pixels, channels, out,
                    out + channels, shift.data());
    });
  });
  const double count = static_cast<double>(view.pixels) * static_cast<double>(size);
  std::vector<double> sum(channels), group(channels);
  for (int64_t n = 0; n < view.images; ++n) {
    const float* image = partial.data() + n * chunks * 2 * channels;
    const auto weight = [&](int64_t k) {
      return static_cast<double>(std::min(kChunk, view.pixels - k * kChunk));
    };
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t k = 0; k < chunks; ++k)
      for (int64_t c = 0; c < channels; ++c) sum[c] += weight(k) * image[k * 2 * channels + c];
    for (int64_t g = 0; g < view.groups; ++g) {
      double total = 0;
      for (int64_t c = g * size; c < (g + 1) * size; ++c) total += sum[c];
      for (int64_t c = g * size; c < (g + 1) * size; ++c) group[c] = total / count;
    }
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t k = 0; k < chunks; ++k)
      for (int64_t c = 0; c < channels; ++c) {
        const double d = image[k * 2 * channels + c] - group[c];
        sum[c] += image[k * 2 * channels + channels + c] + weight(k) * d * d;
      }
    for (int64_t g = 0; g < view.groups; ++g) {
      double total = 0;
      for (int64_t c = g * size; c < (g + 1) * size; ++c) total += sum[c];
      mean.data<float>()[n * view.groups + g] = static_cast<float>(group[g * size]);
      variance.data<float>()[n * view.groups + g] = static_cast<float>(total / count);
    }
  }
}

void norm_rstd(float eps, Tensor& variance) {
  float* v = variance.data<float>();
  for (int64_t i = 0; i < variance.numel(); ++i) v[i] = rstd_of(v[i], eps);
}

void norm_forward(const NormForward& f, Tensor& y) {
  const NormView view = f.view;
  const ChannelTable table(f);
  const int64_t channels = view.channels;
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* residual = f.residual.defined() ? f.residual.data<T>() : nullptr;
    const auto run = [&]<bool kResidual, bool kRelu>() {
      for_each_chunk(view, [&](int64_t image, int64_t, int64_t first, int64_t pixels) {
        const int64_t at = (image * view.pixels + first) * channels;
        forward_rows<kResidual, kRelu>(f.x.data<T>() + at, kResidual ? residual + at : nullptr,
                                       y.data<T>() + at, pixels, channels,
                                       table.mean.data() + image * channels,
                                       table.scale.data() + image * channels, f.beta.data<float>());
      });
    };
    if (residual) {
      if (f.relu)
        run.template operator()<true, true>();
      else
        run.template operator()<true, false>();
    } else if (f.relu) {
      run.template operator()<false, true>();
    } else {
      run.template operator()<false, false>();
    }
  });
}

void norm_backward(NormBackward& norm) {
  const NormForward& f = norm.forward;
  dispatch_floating(f.x.dtype(), [&](auto tag) {
    using T = decltype(tag);
    if (!f.relu)
      backward_masked<Mask::none, T>(norm);
    else if (f.residual.defined())
      backward_masked<Mask::output, T>(norm);
    else
      backward_masked<Mask::recompute, T>(norm);
  });
}

}  // namespace mixpl::cpu
