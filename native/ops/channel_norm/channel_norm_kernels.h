// What the kernels of channel_norm's two directions share.
#pragma once

#include "core/cuda/channel_sums.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_math.h"

namespace mixpl::cuda {

inline ChannelBlocks blocks_of(const NormView& v, int pack) {
  return ChannelBlocks(v.images, v.pixels, v.channels, pack);
}

/// Of an image of `all`; `counted`: f32 [1], or null. At least 1: what nothing is divided by.
MIXPL_DEVICE double pixels_of(int64_t all, const float* counted) {
  return !counted ? double(all) : counted[0] < 1 ? 1.0 : double(counted[0]);
}

struct NormParameters {
  const float *mean, *rstd, *gamma, *beta;
  int64_t groups, size;
  explicit NormParameters(const NormForward& f)
      : mean(f.mean.data<float>()),
        rstd(f.rstd.data<float>()),
        gamma(f.gamma.data<float>()),
        beta(f.beta.data<float>()),
        groups(f.view.groups),
        size(f.view.group_size()) {}
};

/// Rows of x, [R, values], that hold nothing: a block each.
template <typename T>
struct EmptyRows {
  const int32_t* owners;  // [R]
  T* x;
  int64_t values, channels;

  EmptyRows(const NormForward& f, const Tensor& x)
      : owners(f.owners.data<int32_t>()),
        x(x.data<T>()),
        values(f.view.pixels / f.owners.numel() * f.view.channels),
        channels(f.view.channels) {}
};

/// Each of their pixels becomes x's first pixel, or 0.
template <bool kFirst, typename T>
MIXPL_KERNEL __launch_bounds__(kChannelThreads) fill_empty_kernel(EmptyRows<T> rows) {
  const int64_t row = blockIdx.x;
  if (rows.owners[row] >= 0) return;
  for (int64_t i = threadIdx.x; i < rows.values; i += kChannelThreads) {
    const int64_t at = row * rows.values + i;
    if constexpr (!kFirst)
      rows.x[at] = T(0.0f);
    else if (at >= rows.channels)
      rows.x[at] = rows.x[i % rows.channels];
  }
}

template <bool kFirst, typename T>
void fill_empty(const NormForward& f, const Tensor& x) {
  launch(fill_empty_kernel<kFirst, T>, index_of(f.owners.numel()), kChannelThreads, 0,
         EmptyRows<T>(f, x));
}

/// The affine map of one pack of channels.
template <int N>
struct Affine {
  float mean[N], scale[N], shift[N];

  MIXPL_DEVICE Affine(const ChannelShare& s, const NormParameters& p) {
    for (int n = 0; n < N; ++n) {
      const int64_t c = s.channel + n, stat = s.image * p.groups + c / p.size;
      mean[n] = p.mean[stat];
      scale[n] = p.rstd[stat] * p.gamma[c];
      shift[n] = p.beta[c];
    }
  }
};

}  // namespace mixpl::cuda
