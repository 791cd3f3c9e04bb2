#include "ops/deformable_attention/deformable_attention.h"
#include "ops/deformable_attention/deformable_attention_kernels.h"

namespace mixpl::cuda {
namespace {

template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kAttentionThreads, 4)
    forward_kernel(AttentionCall call, const T* value, T* out) {
  constexpr int G = kGroupLanes<N>;
  const AttentionSizes& s = call.s;
  const auto g = GroupPlace<G>::of(s);
  const int64_t channels = int64_t{s.heads} * s.depth;
  const float largest = call.largest_logit(g);
  for (int begin = 0; begin < s.depth; begin += G * N) {
    const int channel = begin + g.own * N;
    const T* from = value + g.image * s.cells * channels + g.head * s.depth + channel;
    const uint32_t read = channel < s.depth ? ~0u : ~15u;
    float sum[N] = {}, total = 0;
    for (int first = 0; first < s.samples(); first += G) {
      const OwnSample own = call.sample(g, first + g.own, largest);
      total += own.weight;
#pragma unroll 1  // registers for more warps hide more than loads of a second sample
      for (int i = 0; i < G; ++i) {
        const int32_t cell = shfl(own.cell, g.base + i);
        const uint32_t packed = shfl(own.packed, g.base + i) & read;
        const float weight = shfl(own.weight, g.base + i);
        Footprint place{};
        place.right = shfl(own.place.right, g.base + i);
        place.down = shfl(own.place.down, g.base + i);
        Vec<T, N> v[4];
        load_corners(from, cell, packed, channels, v);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float share = weight * share_of(place, k);
#pragma unroll
          for (int n = 0; n < N; ++n) sum[n] = fmaf(share, float(v[k][n]), sum[n]);
        }
      }
    }
    const float scale = 1 / group_sum<G>(total);
    if (!g.active || channel >= s.depth) continue;
    Vec<T, N> mean;
    for (int n = 0; n < N; ++n) mean[n] = T(sum[n] * scale);
    store_vec(out + g.row * channels + g.head * s.depth + channel, mean);
  }
}

}  // namespace

void deformable_attention_forward(const Tensor& value, const std::vector<MapSize>& maps,
                                  const Tensor& offsets, const Tensor& logits,
                                  const Tensor& references, const Tensor& ratios, int64_t heads,
                                  Tensor& out) {
  const AttentionSizes s = attention_sizes(value, maps, offsets, references, heads);
  dispatch_floating(value.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(s.depth, [&](auto pack) {
      constexpr int N = decltype(pack)::value;
      launch(forward_kernel<N, T>, GroupPlace<kGroupLanes<N>>::blocks(s), kAttentionThreads, 0,
             AttentionCall(s, offsets, logits, references, ratios), value.data<T>(), out.data<T>());
    });
  });
}

}  // namespace mixpl::cuda
