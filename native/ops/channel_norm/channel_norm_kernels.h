// What the kernels of channel_norm's two directions share.
#pragma once

#include "core/cuda/channel_sums.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/channel_norm/channel_norm_math.h"

namespace mixpl::cuda {

inline ChannelBlocks blocks_of(const NormView& v, int pack) {
  return ChannelBlocks(v.images, v.pixels, v.channels, pack);
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
