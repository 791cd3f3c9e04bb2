// Gradients of offsets, logits and references belong to a query. That of value belongs to cells,
// which do not know who reads them: adding to them by atomics takes 64 bits for each channel of
// each corner, to have the same bits on every run. Here samples are sorted by the place of their
// first corner (counted, then listed by the kernel that finds them anyway), and cells collect what
// lists around them have: a sample takes an atomic and 16 bytes, and each cell is written once. The
// order within a list is anyone's, so sums are integers.
#include <bit>

#include "core/cuda/approximations.h"
#include "ops/deformable_attention/deformable_attention.h"
#include "ops/deformable_attention/deformable_attention_kernels.h"

namespace mixpl::cuda {
namespace {

constexpr int kSpan = 4;                      // cells of a row that a group collects for
constexpr unsigned kNotFinite = 0x7f800000u;  // bits from here on: infinity, NaN

struct alignas(16) Record {
  int32_t query;
  float weight, right, down;
};

// Samples by plane (an image's head) and bin: the place of the first corner, which may be a row
// above and a column left of the map.
struct Lists {
  Record* records;    // of a plane, bin after bin; null when nobody wants value's gradient
  int32_t* ends;      // [planes][bins], within the plane
  unsigned* largest;  // [planes], bits of the largest |dout|; from kNotFinite on: something is not
  int64_t plane_records;
  int32_t bins, spans;  // of a plane

  MIXPL_DEVICE int32_t* end_of(const AttentionSizes& s, int64_t plane, int level,
                               const Footprint& place) const {
    return ends + plane * bins + s.level[level].first_bin +
           int64_t{place.top + 1} * (s.level[level].width + 1) + place.left + 1;
  }
};

struct CountSamples {
  AttentionCall call;
  Lists lists;
  Divider samples, heads, queries, points;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const AttentionSizes& s = call.s;
    uint32_t sample = static_cast<uint32_t>(i), head = samples.split(sample);
    const uint32_t row = heads.split(head), image = queries.quotient(row);
    const uint32_t l = points.quotient(sample);
    const SampleFrame frame = sample_frame(s, s.level[l], call.references + row * s.coordinates,
                                           call.ratios + 2 * (image * s.levels + l));
    const Vec<float, 2> offset = call.offsets.pair(i);
    const Footprint place = footprint_of(frame.x + offset[0] * frame.per_x,
                                         frame.y + offset[1] * frame.per_y, s.level[l]);
    if (place.corners)
      atomic_add(lists.end_of(s, int64_t{image} * s.heads + head, static_cast<int>(l), place), 1);
  }
};

constexpr int kScanThreads = 1024, kScanItems = 4;

// Counts of a plane's bins to where their records begin.
template <typename Unused = void>
MIXPL_KERNEL __launch_bounds__(kScanThreads) starts_kernel(Lists lists) {
  int32_t* plane = lists.ends + int64_t{blockIdx.x} * lists.bins;
  int32_t before = 0;
  for (int first = 0; first < lists.bins; first += kScanThreads * kScanItems) {
    int32_t count[kScanItems], own = 0, all;
    const int begin = first + static_cast<int>(threadIdx.x) * kScanItems;
    for (int i = 0; i < kScanItems; ++i) {
      count[i] = begin + i < lists.bins ? plane[begin + i] : 0;
      own += count[i];
    }
    int32_t start = before + block_scan_exclusive(own, &all);
    for (int i = 0; i < kScanItems; ++i) {
      if (begin + i < lists.bins) plane[begin + i] = start;
      start += count[i];
    }
    before += all;
  }
}

struct QueryGradients {
  Floats offsets, logits;
  float* references;  // [row][head][4], of one head
};

template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kAttentionThreads, 2)
    query_kernel(AttentionCall call, const T* value, const T* dout, QueryGradients grads,
                 Lists lists) {
  constexpr int G = kGroupLanes<N>;
  MIXPL_DYNAMIC_SHARED(float, kept);  // a thread's own samples, dout times them
  const AttentionSizes& s = call.s;
  const auto g = GroupPlace<G>::of(s);
  const int64_t channels = int64_t{s.heads} * s.depth;
  const T* from = value + g.image * s.cells * channels + g.head * s.depth;
  const T* dout_of_head = dout + g.row * channels + g.head * s.depth;
  const auto dout_at = [&](int channel, float(&to)[N]) {
    Vec<T, N> v{};
    if (g.active && channel < s.depth) v = load_vec<T, N>(dout_of_head + channel);
#pragma unroll
    for (int n = 0; n < N; ++n) to[n] = float(v[n]);
  };
  float first_dout[N];
  dout_at(g.own * N, first_dout);

  const float largest = call.largest_logit(g);
  float total = 0;
  for (int i = g.own; i < s.samples(); i += G) total += call.weight(g, i, largest);
  const float scale = 1 / group_sum<G>(total);
  const bool finite = !g.active || (scale > 0 && scale < std::numeric_limits<float>::infinity());

  float mean = 0, dreference[4] = {};
  const int64_t plane = int64_t{g.image} * s.heads + g.head;
  for (int first = 0; first < s.samples(); first += G) {
    const OwnSample own = call.sample(g, first + g.own, largest);
    float part[4][G] = {};
#pragma unroll
    for (int i = 0; i < G; ++i) {
      const int32_t cell = shfl(own.cell, g.base + i);
      const uint32_t packed = shfl(own.packed, g.base + i);
      const auto add_products = [&](int channel, uint32_t read, const float(&d)[N]) {
        Vec<T, N> v[4];
        load_corners(from + channel, cell, packed & read, channels, v);
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int n = 0; n < N; ++n) part[k][i] = fmaf(d[n], float(v[k][n]), part[k][i]);
      };
      add_products(g.own * N, g.own * N < s.depth ? ~0u : ~15u, first_dout);
      for (int channel = (G + g.own) * N; channel < s.depth; channel += G * N) {
        float d[N];
        dout_at(channel, d);
        add_products(channel, ~0u, d);
      }
    }
    const float corners[4] = {group_sums<G>(part[0]), group_sums<G>(part[1]),
                              group_sums<G>(part[2]), group_sums<G>(part[3])};
    const int i = first + g.own;
    if (!g.active || i >= s.samples()) continue;
    const SampleTerms terms =
        own.place.corners ? sample_terms(own.place, corners) : SampleTerms{0, 0, 0};
    const SampleFrame frame = call.frame(g, own.level);
    const float weight = own.weight * scale, dx = weight * terms.dx, dy = weight * terms.dy;
    kept[first / G * kAttentionThreads + threadIdx.x] = terms.value;
    mean = fmaf(weight, terms.value, mean);
    if (grads.offsets.values)
      grads.offsets.set_pair(g.at * s.samples() + i, dx * frame.per_x, dy * frame.per_y);
    if (own.place.corners == 0) continue;
    const Vec<float, 2> offset = call.offsets.pair(g.at * s.samples() + i);
    dreference[0] = fmaf(dx, frame.by_x, dreference[0]);
    dreference[1] = fmaf(dy, frame.by_y, dreference[1]);
    dreference[2] = fmaf(dx * offset[0], frame.by_w, dreference[2]);
    dreference[3] = fmaf(dy * offset[1], frame.by_h, dreference[3]);
    if (lists.records) {
      const int32_t at = atomic_add(lists.end_of(s, plane, own.level, own.place), 1);
      lists.records[plane * lists.plane_records + at] = {g.query, finite ? weight : 0,
                                                         own.place.right, own.place.down};
    }
  }
  if (grads.logits.values) {
    mean = group_sum<G>(mean);
    for (int i = g.own; i < s.samples() && g.active; i += G)
      grads.logits.set(g.at * s.samples() + i,
                       call.weight(g, i, largest) * scale *
                           (kept[i / G * kAttentionThreads + threadIdx.x] - mean));
  }
  if (grads.references) {
    Vec<float, 4> sums;
    for (int k = 0; k < 4; ++k) sums[k] = group_sum<G>(dreference[k]);
    if (g.active && g.own == 0) store_vec(grads.references + g.at * 4, sums);
  }
  if (lists.records) {
    unsigned bits = finite ? 0 : kNotFinite;
    for (int channel = g.own * N; channel < s.depth; channel += G * N) {
      float d[N];
      dout_at(channel, d);
      for (int n = 0; n < N; ++n) {
        const unsigned own = std::bit_cast<unsigned>(d[n]) & 0x7fffffffu;
        if (own > bits) bits = own;
      }
    }
    bits = block_max(bits);
    if (threadIdx.x == 0 && bits > 0) atomic_max(lists.largest + plane, bits);
  }
}

struct AddHeads {
  const float* of_heads;  // [row][head][4]
  int32_t heads, coordinates;
  float* out;
  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / coordinates, k = i % coordinates;
    float sum = 0;
    for (int h = 0; h < heads; ++h) sum += of_heads[(row * heads + h) * 4 + k];
    out[i] = sum;
  }
};

MIXPL_HD int32_t spans_of(const AttentionLevel& level) {
  return level.height * ((level.width + kSpan - 1) / kSpan);
}

// Units of what a span of cells sums: products of integers, so that no order of them shows. What
// they may have of 62 bits is known once it is known how many there are; the two factors share it.
struct FixedPoint {
  int exponent;  // |dout| is below 2^exponent
  int of_dout, of_weight;

  static MIXPL_DEVICE FixedPoint of(unsigned largest, int32_t terms) {
    FixedPoint f;
    f.exponent = static_cast<int>(largest >> 23) - 126;
    if (f.exponent < -90) f.exponent = -90;  // units are numbers, too
    const int bits = terms > 1 ? 30 + leading_zeros(static_cast<uint32_t>(terms - 1)) : 62;
    f.of_weight = bits / 2 < 30 ? bits / 2 : 30;
    f.of_dout = bits - f.of_weight < 30 ? bits - f.of_weight : 30;
    return f;
  }
  static MIXPL_DEVICE float power(int n) {
    return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
  }
  MIXPL_DEVICE float dout_units() const { return power(of_dout - exponent); }
  MIXPL_DEVICE float weight_units() const { return power(of_weight); }
  MIXPL_DEVICE double value() const { return ldexp(1.0, exponent - of_dout - of_weight); }
};

// A group for each span: it walks along the bins of the two rows that touch its cells, with the
// sums of the cell to the left and to the right of the bin.
template <int N, typename T>
MIXPL_KERNEL __launch_bounds__(kAttentionThreads, 3)
    value_kernel(AttentionSizes s, Lists lists, const T* dout, T* dvalue) {
  constexpr int G = kGroupLanes<N>, kSpans = kAttentionThreads / G;
  const int64_t channels = int64_t{s.heads} * s.depth;
  const uint32_t tiles = (static_cast<uint32_t>(lists.spans) + kSpans - 1) / kSpans;
  const uint32_t tile = blockIdx.x / static_cast<uint32_t>(s.heads);
  const int head = static_cast<int>(blockIdx.x % static_cast<uint32_t>(s.heads));
  const int64_t image = tile / tiles, plane = image * s.heads + head;
  int span = static_cast<int>(tile % tiles) * kSpans + static_cast<int>(threadIdx.x) / G;
  if (span >= lists.spans) return;
  int l = 0;
  for (; l + 1 < s.levels && span >= spans_of(s.level[l]); ++l) span -= spans_of(s.level[l]);
  const int width = s.level[l].width, across = (width + kSpan - 1) / kSpan;
  const int y = span / across, x = span % across * kSpan;
  const int count = width - x < kSpan ? width - x : kSpan;
  const Record* records = lists.records + plane * lists.plane_records;
  const int32_t* ends = lists.ends + plane * lists.bins;
  const int32_t bin =
      s.level[l].first_bin + y * (width + 1) + x;  // above and left of the first cell
  const auto begin_of = [&](int32_t b) { return b > 0 ? ends[b - 1] : 0; };
  const int32_t terms =
      ends[bin + count] - begin_of(bin) + ends[bin + width + 1 + count] - begin_of(bin + width + 1);
  const unsigned largest = lists.largest[plane];
  const FixedPoint fixed = FixedPoint::of(largest, terms);
  const float dout_units = fixed.dout_units(), weight_units = fixed.weight_units();
  const bool broken = largest >= kNotFinite;
  const double unit = broken ? std::numeric_limits<double>::quiet_NaN() : fixed.value();

  for (int channel = lane() % G * N; channel < s.depth; channel += G * N) {
    const T* from = dout + image * s.queries * channels + head * s.depth + channel;
    T* to = dvalue + (image * s.cells + s.level[l].first + int64_t{y} * width + x) * channels +
            head * s.depth + channel;
    int64_t left[N] = {}, right[N] = {};
    for (int c = 0; c <= count; ++c) {
      for (int row = 0; row < 2; ++row) {
        const int32_t b = bin + row * (width + 1) + c, end = broken ? 0 : ends[b];
        int32_t i = begin_of(b);
        Record next{};
        if (i < end) next = records[i];
        for (; i < end; ++i) {
          const Record r = next;
          const Vec<T, N> d = load_vec<T, N>(from + r.query * channels);
          if (i + 1 < end) next = records[i + 1];
          const float weight = r.weight * (row ? 1 - r.down : r.down) * weight_units;
          const int32_t of_left = nearest_int(weight * (1 - r.right)),
                        of_right = nearest_int(weight * r.right);
#pragma unroll
          for (int n = 0; n < N; ++n) {
            const int32_t own = nearest_int(float(d[n]) * dout_units);
            left[n] += int64_t{of_left} * own;
            right[n] += int64_t{of_right} * own;
          }
        }
      }
      if (c > 0) {
        Vec<T, N> sum;
#pragma unroll
        for (int n = 0; n < N; ++n)
          sum[n] = T(static_cast<float>(static_cast<double>(left[n]) * unit));
        store_vec(to + (c - 1) * channels, sum);
      }
#pragma unroll
      for (int n = 0; n < N; ++n) {
        left[n] = right[n];
        right[n] = 0;
      }
    }
  }
}

// Lists without memory.
Lists lists_of(const AttentionSizes& s) {
  Lists lists{};
  int64_t bins = 0, spans = 0;
  for (int l = 0; l < s.levels; ++l) {
    bins += s.level[l].bins();
    spans += spans_of(s.level[l]);
  }
  lists.bins = static_cast<int32_t>(index_of(bins));
  lists.spans = static_cast<int32_t>(index_of(spans));
  lists.plane_records = s.queries * s.samples();
  return lists;
}

}  // namespace

void deformable_attention_backward(const Tensor& dout, const Tensor& value,
                                   const std::vector<MapSize>& maps, const Tensor& offsets,
                                   const Tensor& logits, const Tensor& references,
                                   const Tensor& ratios, int64_t heads,
                                   DeformableAttentionGradients& grads) {
  const AttentionSizes s = attention_sizes(value, maps, offsets, references, heads);
  const AttentionCall call(s, offsets, logits, references, ratios);
  const int64_t planes = s.images * s.heads;
  Lists lists = lists_of(s);
  Tensor memory, of_heads;
  if (grads.value.defined()) {
    const int64_t records = planes * lists.plane_records * int64_t{sizeof(Record)},
                  counts = (planes * lists.bins + planes) * int64_t{sizeof(int32_t)};
    memory = scratch(records + counts);
    lists.records = static_cast<Record*>(memory.raw());
    lists.ends = reinterpret_cast<int32_t*>(lists.records + planes * lists.plane_records);
    lists.largest = reinterpret_cast<unsigned*>(lists.ends + planes * lists.bins);
    memset_device(lists.ends, 0, counts);
    for_each(index_of(planes * lists.plane_records),
             CountSamples{call, lists, Divider(s.samples()), Divider(s.heads), Divider(s.queries),
                          Divider(s.points)});
    launch(starts_kernel<>, index_of(planes), kScanThreads, 0, lists);
  }
  if (grads.references.defined())
    of_heads = scratch(planes * s.queries * 4 * int64_t{sizeof(float)});
  dispatch_floating(value.dtype(), [&](auto tag) {
    using T = decltype(tag);
    with_packs<T>(s.depth, [&](auto pack) {
      constexpr int N = decltype(pack)::value, G = kGroupLanes<N>;
      const QueryGradients of_queries{
          Floats(grads.offsets), Floats(grads.logits),
          of_heads.defined() ? reinterpret_cast<float*>(of_heads.raw()) : nullptr};
      launch(query_kernel<N, T>, GroupPlace<G>::blocks(s), kAttentionThreads,
             (s.samples() + G - 1) / G * kAttentionThreads * sizeof(float), call, value.data<T>(),
             dout.data<T>(), of_queries, lists);
      if (!grads.value.defined()) return;
      constexpr int kSpans = kAttentionThreads / G;
      launch(value_kernel<N, T>, index_of(planes * ((lists.spans + kSpans - 1) / kSpans)),
             kAttentionThreads, 0, s, lists, dout.data<T>(), grads.value.data<T>());
    });
  });
  if (grads.references.defined())
    for_each(grads.references.numel(),
             AddHeads{reinterpret_cast<const float*>(of_heads.raw()), s.heads, s.coordinates,
                      grads.references.data<float>()});
}

}  // namespace mixpl::cuda
