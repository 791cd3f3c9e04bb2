// The first k of many items, segment by segment and exactly: radix selection on keys that keep the
// order, equal ones by lower index, so that the choice does not depend on how threads run.
#pragma once

#include <algorithm>

#include "core/cuda/kernel.h"
#include "core/cuda/places.h"
#include "core/tensor.h"
#include "detect/box_decoder.h"
#include "detect/select_cuda.h"

namespace mixpl::cuda {

/// What an item is ordered by, as one integer: the key, then the index. No two are equal.
MIXPL_HD uint64_t ordered_item(uint32_t key, int64_t index) {
  return uint64_t{key} << 32 | static_cast<uint32_t>(index);
}
MIXPL_HD int64_t index_of(uint64_t item) { return static_cast<int64_t>(item & 0x7fffffffu); }
/// An item that takes no part.
constexpr uint64_t kNoItem = ~uint64_t{0};

/// The chosen items of each segment, in no order.
struct Selection {
  Tensor items;   // i64 [S, most]
  Tensor counts;  // i32 [S]
  int64_t most() const { return items.size(1); }
};
struct SelectionView {
  const uint64_t* items;
  const int32_t* counts;
  int64_t most;
  explicit SelectionView(const Selection& s)
      : items(reinterpret_cast<const uint64_t*>(s.items.data<int64_t>())),
        counts(s.counts.data<int32_t>()),
        most(s.most()) {}
};

namespace top_items {

constexpr int kThreads = 256, kEach = 4;  // loads in flight
constexpr int kPack = 8;                  // values that a thread reads at once
constexpr int kDigit = 11, kBins = 1 << kDigit, kPasses = 6;
constexpr int shift_of(int pass) { return pass + 1 < kPasses ? 64 - kDigit * (pass + 1) : 0; }
constexpr int width_of(int pass) { return pass + 1 < kPasses ? kDigit : 64 - kDigit * pass; }

struct State {
  uint64_t prefix;  // the digits of the last item that are known
  uint64_t bound;   // once done: items below it are chosen
  int64_t left;     // how many of the items that begin with `prefix`
  uint32_t last;    // no key above it is chosen
  int32_t done;
};

/// Where the items of a segment come from: a list of all that take part if they fit into it,
/// otherwise they are computed anew each time.
template <typename View>
struct Source {
  View view;
  uint64_t* list;  // [S, capacity]
  int64_t capacity;
  int32_t* found;  // [S]; of segments with more than `capacity`, some number above it

  /// null: there is none.
  MIXPL_DEVICE const uint64_t* list_of(int segment) const {
    return found[segment] <= capacity ? list + segment * capacity : nullptr;
  }
};

/// Keys from the first to the last.
struct Keys {
  uint32_t first, last;
};
constexpr Keys kAllKeys = {0, ~uint32_t{0}};

/// Adds `item` of the lanes that have one to a list; all lanes of the warp must call. Returns
/// whether all that the list was given so far fits.
MIXPL_DEVICE bool append(bool has, uint64_t item, uint64_t* list, int64_t capacity,
                         int32_t* count) {
  const Places places = take_places(has, count);
  if (has && places.own < capacity) list[places.own] = item;
  return places.end <= capacity;
}

template <typename View>
constexpr bool kInPacks = requires(const View& view) {
  view.packs(0);
};

/// Numbers in a row, as the packs of a View read them.
struct NumberRow {
  Numbers numbers;  // the first is the row's
  int64_t length;

  MIXPL_DEVICE NumberRow(Numbers all, int64_t first, int64_t length)
      : numbers{static_cast<const char*>(all.data) + first * (all.bf16 ? 2 : 4), all.bf16},
        length(length) {}
  MIXPL_DEVICE int64_t offset() const {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(numbers.data) / (numbers.bf16 ? 2 : 4) %
                                kPack);
  }
  MIXPL_DEVICE float value(int64_t i) const { return numbers[i]; }
  MIXPL_DEVICE void load(int64_t i, float (&x)[kPack]) const {
    if (i >= 0 && i + kPack <= length)
      return numbers.bf16 ? load_as<bfloat16>(i, x) : load_as<float>(i, x);
#pragma unroll
    for (int u = 0; u < kPack; ++u) x[u] = i + u >= 0 && i + u < length ? value(i + u) : NAN;
  }

 private:
  template <typename T>
  MIXPL_DEVICE void load_as(int64_t i, float (&x)[kPack]) const {
#pragma unroll
    for (int v = 0; v < kPack; v += kVecWidth<T>) {
      const auto values = load_vec<T, kVecWidth<T>>(static_cast<const T*>(numbers.data) + i + v);
#pragma unroll
      for (int u = 0; u < kVecWidth<T>; ++u) x[v + u] = static_cast<float>(values[u]);
    }
  }
};

/// f(item) for the block's share of a segment's items, as for_items.
template <typename View, typename F>
MIXPL_DEVICE void for_packs(const View& view, int segment, Keys keys, F f) {
  const auto packs = view.packs(segment);
  const auto span = packs.span(keys);
  const int64_t tile = int64_t{kThreads} * kPack, step = gridDim.x * tile;
  for (int64_t base = blockIdx.x * tile - packs.offset(); base < packs.length; base += step) {
    const int64_t i = base + int64_t{threadIdx.x} * kPack;
    float x[kPack];
    packs.load(i, x);
    if (span.is_all()) {
#pragma unroll
      for (int u = 0; u < kPack; ++u)
        if (!f(packs.item(i + u, x[u]))) return;
      continue;
    }
    uint32_t within = 0;
#pragma unroll
    for (int u = 0; u < kPack; ++u) within |= static_cast<uint32_t>(span.has(x[u])) << u;
    // Few are, of most packs: each lane goes on to its own next, which it reads again.
    for (; any(within != 0); within &= within - 1) {
      const int64_t next = i + lowest_bit(within);
      if (!f(within != 0 ? packs.item(next, packs.value(next)) : kNoItem)) return;
    }
  }
}

/// f(at(i)) for the block's share of [0, length).
template <typename At, typename F>
MIXPL_DEVICE void for_row(int64_t length, const At& at, F f) {
  const int64_t tile = int64_t{kThreads} * kEach;
  for (int64_t base = blockIdx.x * tile; base < length; base += gridDim.x * tile) {
    uint64_t items[kEach];
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      const int64_t i = base + u * kThreads + threadIdx.x;
      items[u] = i < length ? at(i) : kNoItem;
    }
#pragma unroll
    for (int u = 0; u < kEach; ++u)
      if (!f(items[u])) return;
  }
}

/// f(item) for the block's share of a segment's items, of the list or (null) of the view, by whole
/// warps, each until f says false. Items that have none of the `keys` may be left out.
template <typename View, typename F>
MIXPL_DEVICE void for_items(const View& view, int segment, const uint64_t* list, int64_t length,
                            Keys keys, F f) {
  if (list)
    for_row(
        length, [&](int64_t i) { return list[i]; }, f);
  else if constexpr (kInPacks<View>)
    for_packs(view, segment, keys, f);
  else
    for_row(
        length, [&](int64_t i) { return view.item(segment, i); }, f);
}

template <typename View>
MIXPL_KERNEL __launch_bounds__(kThreads, 4) gather_kernel(Source<View> source) {
  const int segment = blockIdx.y;
  uint64_t* list = source.list + segment * source.capacity;
  // Once more are found than the list holds nobody will read it, and how many more no one asks.
  for_items(source.view, segment, nullptr, source.view.length(segment), kAllKeys,
            [&](uint64_t item) {
              return append(item != kNoItem, item, list, source.capacity, source.found + segment);
            });
}

template <typename View>
MIXPL_KERNEL __launch_bounds__(kSelectThreads) start_kernel(Source<View> source, State* state) {
  const int segment = blockIdx.x;
  const int64_t wanted = source.view.wanted(segment);
  const int32_t found = source.found[segment];
  uint32_t last = kAllKeys.last;
  // Where items take time to compute: what is behind so many of any part is behind them in the
  // whole, and most is.
  if constexpr (kInPacks<View>)
    if (found > source.capacity && wanted > 0) {
      const uint64_t* list = source.list + segment * source.capacity;
      const uint64_t bound =
          least_keys(source.capacity, wanted, [&](int64_t i) { return list[i]; });
      last = static_cast<uint32_t>(bound >> 32);
    }
  const bool all = found <= wanted;
  if (threadIdx.x == 0)
    state[segment] = {0, all && wanted > 0 ? kNoItem : 0, wanted, last, all || wanted <= 0};
}

template <typename View>
MIXPL_KERNEL __launch_bounds__(kThreads, 4)
    count_kernel(Source<View> source, const State* state, int32_t* counts, int shift, int width) {
  const int segment = blockIdx.y;
  const State s = state[segment];
  const uint64_t* list = source.list_of(segment);
  const int64_t length = list ? source.found[segment] : source.view.length(segment);
  if (s.done || int64_t{blockIdx.x} * kThreads * kEach >= length) return;
  MIXPL_SHARED(int32_t, bins, kBins);
  for (int b = threadIdx.x; b < kBins; b += kThreads) bins[b] = 0;
  sync_block();
  const int above = shift + width;
  const uint64_t below = above < 64 ? (uint64_t{1} << above) - 1 : ~uint64_t{0};
  const uint32_t last = static_cast<uint32_t>((s.prefix | below) >> 32);
  const Keys keys{static_cast<uint32_t>(s.prefix >> 32), last < s.last ? last : s.last};
  for_items(source.view, segment, list, length, keys, [&](uint64_t item) {
    if (item != kNoItem && ((item ^ s.prefix) & ~below) == 0)
      atomic_add(&bins[(item >> shift) & ((1u << width) - 1)], 1);
    return true;
  });
  sync_block();
  for (int b = threadIdx.x; b < kBins; b += kThreads)
    if (bins[b] > 0) atomic_add(&counts[segment * kBins + b], bins[b]);
}

/// Finds the digit of the last chosen item of each segment, or that the choice is made.
void choose(int64_t segments, State* state, const int32_t* counts, int shift);

template <typename View>
MIXPL_KERNEL __launch_bounds__(kThreads, 4)
    collect_kernel(Source<View> source, const State* state, uint64_t* out, int64_t most,
                   int32_t* counts) {
  const int segment = blockIdx.y;
  const uint64_t bound = state[segment].bound;
  if (bound == 0) return;
  const uint64_t* list = source.list_of(segment);
  const int64_t length = list ? source.found[segment] : source.view.length(segment);
  const Keys keys{0, static_cast<uint32_t>(bound >> 32)};
  for_items(source.view, segment, list, length, keys, [&](uint64_t item) {
    append(item < bound, item, out + segment * most, most, counts + segment);
    return true;
  });
}

}  // namespace top_items

/// Of each segment the View::wanted(segment) first of its items, all if there are not more.
///
/// @param view     plain data: int64_t length(int segment); int64_t wanted(int segment), at most
///                 `most` or all; uint64_t item(int segment, int64_t i), an ordered_item or
///                 kNoItem, or, where items are made of numbers in a row, packs(int segment) with,
///                 as NumberRow has them,
///                   int64_t length; int64_t offset(), from an aligned number to the first;
///                   void load(int64_t i, float (&x)[kPack]), NaN for those beyond the segment;
///                   float value(int64_t i); uint64_t item(int64_t i, float value);
///                   span(Keys) with bool has(float value), true for all items that have one of
///                   these keys, and bool is_all(), where it may be true for all
/// @param longest  of the segments, below 2^31
template <typename View>
Selection top_items_of(const View& view, int64_t segments, int64_t longest, int64_t most,
                       Device device) {
  using namespace top_items;
  // Longer than what usually passes a score threshold, small beside a head's outputs.
  const int64_t capacity = std::min(longest, std::max<int64_t>(most, 16384));
  Selection out{Tensor::empty({segments, most}, DType::i64, device),
                Tensor::zeros({segments}, DType::i32, device)};
  if (segments == 0 || longest == 0) return out;
  const Tensor list = Tensor::empty({segments, capacity}, DType::i64, device);
  const Tensor found = Tensor::zeros({segments}, DType::i32, device);
  const Tensor counts = Tensor::zeros({kPasses, segments, kBins}, DType::i32, device);
  const Tensor states =
      Tensor::empty({segments * static_cast<int64_t>(sizeof(State))}, DType::u8, device);
  State* state = reinterpret_cast<State*>(states.raw());
  const Source<View> source{view, reinterpret_cast<uint64_t*>(list.raw()), capacity,
                            found.data<int32_t>()};

  const dim3 threads(kThreads);
  // A few waves of the device altogether: most segments are far shorter than the longest.
  const int64_t fair = std::max<int64_t>(int64_t{multiprocessors()} * 64 / segments, 1);
  const int64_t needed = kInPacks<View> ? blocks_for(longest + kPack, kThreads, kPack)
                                        : blocks_for(longest, kThreads, kEach);
  const dim3 blocks(static_cast<unsigned>(std::min(needed, fair)), static_cast<unsigned>(segments));
  launch(gather_kernel<View>, blocks, threads, 0, source);
  launch(start_kernel<View>, dim3(static_cast<unsigned>(segments)), dim3(kSelectThreads), 0, source,
         state);
  for (int pass = 0; pass < kPasses; ++pass) {
    int32_t* bins = counts.data<int32_t>() + pass * segments * kBins;
    launch(count_kernel<View>, blocks, threads, 0, source, state, bins, shift_of(pass),
           width_of(pass));
    choose(segments, state, bins, shift_of(pass));
  }
  launch(collect_kernel<View>, blocks, threads, 0, source, state,
         reinterpret_cast<uint64_t*>(out.items.raw()), most, out.counts.data<int32_t>());
  return out;
}

}  // namespace mixpl::cuda
