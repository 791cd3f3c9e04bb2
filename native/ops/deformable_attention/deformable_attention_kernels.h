// What both passes on a GPU share. A head of a query belongs to a group of lanes: each has a pack
// of its channels, and each finds the place and weight of every so many samples, for all of them.
#pragma once

#include <limits>

#include "core/cuda/packs.h"
#include "core/math.h"
#include "ops/deformable_attention/deformable_attention_math.h"

namespace mixpl::cuda {

constexpr int kAttentionThreads = 256;
/// Of a group, whose packs hold N channels: 32 channels at once where packs are of 16 bytes.
template <int N>
constexpr int kGroupLanes = N == 8 ? 4 : 8;

/// The sum over a group, in each of its lanes.
template <int G>
MIXPL_DEVICE float group_sum(float v) {
#pragma unroll
  for (int mask = 1; mask < G; mask <<= 1) v += shfl_xor(v, mask);
  return v;
}
template <int G>
MIXPL_DEVICE float group_max(float v) {
#pragma unroll
  for (int mask = 1; mask < G; mask <<= 1) v = Max()(v, shfl_xor(v, mask));
  return v;
}
/// Lane i of a group gets the sum of part[i] over the group: half as many numbers go in each step.
template <int G>
MIXPL_DEVICE float group_sums(float (&part)[G]) {
#pragma unroll
  for (int half = G / 2; half > 0; half /= 2) {
    const bool upper = (lane() & half) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float sent = upper ? part[i] : part[i + half];
      part[i] = (upper ? part[i + half] : part[i]) + shfl_xor(sent, half);
    }
  }
  return part[0];
}

/// Numbers whose type is asked for as they are read or written: a few per head, beside the packs.
struct Floats {
  void* values;
  bool bf16;

  explicit Floats(const Tensor& t)
      : values(t.defined() ? t.raw() : nullptr), bf16(t.defined() && t.dtype() == DType::bf16) {}
  MIXPL_DEVICE float operator[](int64_t i) const {
    return bf16 ? float(static_cast<const bfloat16*>(values)[i])
                : static_cast<const float*>(values)[i];
  }
  MIXPL_DEVICE Vec<float, 2> pair(int64_t i) const {
    if (!bf16) return load_vec<float, 2>(static_cast<const float*>(values) + 2 * i);
    const auto v = load_vec<bfloat16, 2>(static_cast<const bfloat16*>(values) + 2 * i);
    return {{float(v[0]), float(v[1])}};
  }
  MIXPL_DEVICE void set(int64_t i, float v) const {
    if (bf16)
      static_cast<bfloat16*>(values)[i] = bfloat16(v);
    else
      static_cast<float*>(values)[i] = v;
  }
  MIXPL_DEVICE void set_pair(int64_t i, float first, float second) const {
    if (bf16)
      store_vec<bfloat16, 2>(static_cast<bfloat16*>(values) + 2 * i,
                             {{bfloat16(first), bfloat16(second)}});
    else
      store_vec<float, 2>(static_cast<float*>(values) + 2 * i, {{first, second}});
  }
};

/// Whose head of which query a thread works on. A block has neighbouring queries, which read
/// neighbouring cells, of one head; blocks of the other heads are beside it.
template <int G>
struct GroupPlace {
  int own, base;  // lane within the group, first lane of the group
  int image, head, query;
  bool active;      // the query is one
  int64_t row, at;  // query among those of all images, and times heads, plus the head

  static constexpr int kQueries = kAttentionThreads / G;  // of a block
  static unsigned blocks(const AttentionSizes& s) {
    return index_of(s.images * ((s.queries + kQueries - 1) / kQueries) * s.heads);
  }
  static MIXPL_DEVICE GroupPlace of(const AttentionSizes& s) {
    GroupPlace g;
    const auto queries = static_cast<uint32_t>(s.queries),
               tiles = (queries + kQueries - 1) / kQueries,
               tile = blockIdx.x / static_cast<uint32_t>(s.heads);
    g.own = lane() % G;
    g.base = lane() - g.own;
    g.head = static_cast<int>(blockIdx.x % static_cast<uint32_t>(s.heads));
    g.image = static_cast<int>(tile / tiles);
    g.query = static_cast<int>(tile % tiles) * kQueries + static_cast<int>(threadIdx.x) / G;
    g.active = g.query < static_cast<int>(queries);
    g.row = g.image * s.queries + g.query;
    g.at = g.row * s.heads + g.head;
    return g;
  }
};

/// A sample as the lane knows it that found it.
struct OwnSample {
  Footprint place;
  int32_t cell;     // the first corner, among the cells of all levels
  uint32_t packed;  // width of the level and, in the lowest four bits, the place's corners
  int32_t level;
  float weight;  // e^(logit - the head's largest); 0 behind the last sample
};

struct AttentionCall {
  AttentionSizes s;
  Floats offsets, logits;
  const float *references, *ratios;

  AttentionCall(const AttentionSizes& s, const Tensor& offsets, const Tensor& logits,
                const Tensor& references, const Tensor& ratios)
      : s(s),
        offsets(offsets),
        logits(logits),
        references(references.data<float>()),
        ratios(ratios.data<float>()) {
    index_of(s.queries * s.samples());
  }

  /// Of the group's head, in each lane.
  template <int G>
  MIXPL_DEVICE float largest_logit(const GroupPlace<G>& g) const {
    float largest = -std::numeric_limits<float>::infinity();
    if (g.active)
      for (int i = g.own; i < s.samples(); i += G)
        largest = Max()(largest, logits[g.at * s.samples() + i]);
    return group_max<G>(largest);
  }
  template <int G>
  MIXPL_DEVICE float weight(const GroupPlace<G>& g, int i, float largest) const {
    return g.active && i < s.samples() ? exp_f32(logits[g.at * s.samples() + i] - largest) : 0;
  }
  template <int G>
  MIXPL_DEVICE SampleFrame frame(const GroupPlace<G>& g, int level) const {
    return sample_frame(s, s.level[level], references + g.row * s.coordinates,
                        ratios + 2 * (int64_t{g.image} * s.levels + level));
  }
  template <int G>
  MIXPL_DEVICE OwnSample sample(const GroupPlace<G>& g, int i, float largest) const {
    OwnSample o{};
    if (!g.active || i >= s.samples()) return o;
    o.level = i / s.points;
    const AttentionLevel level = s.level[o.level];
    const SampleFrame f = frame(g, o.level);
    const Vec<float, 2> offset = offsets.pair(g.at * s.samples() + i);
    o.place = footprint_of(f.x + offset[0] * f.per_x, f.y + offset[1] * f.per_y, level);
    o.cell = level.first + o.place.top * level.width + o.place.left;
    o.packed = static_cast<uint32_t>(level.width) << 4 | o.place.corners;
    o.weight = weight(g, i, largest);
    return o;
  }
};

/// Packs of a sample's four corners, zeros outside the map. No branches: the loads of several
/// samples are under way together.
template <int N, typename T>
MIXPL_DEVICE void load_corners(const T* from, int32_t cell, uint32_t packed, int64_t channels,
                               Vec<T, N> (&v)[4]) {
  const T* first = from + cell * channels;
  const int64_t below = (packed >> 4) * channels;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    v[k] = Vec<T, N>{};
    if (packed >> k & 1)
      v[k] = load_vec<T, N>(first + (k / 2 ? below : 0) + (k % 2 ? channels : 0));
  }
}

}  // namespace mixpl::cuda
