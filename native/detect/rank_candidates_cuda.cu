// A merge sort: runs that fit into shared memory, then pairs of runs until one is left. A key's
// place in a merged run is its own place and how many keys of the other run are before it; no two
// keys are equal, so every key has a place of its own.
#include <utility>

#include "detect/suppression_cuda.h"

namespace mixpl::cuda {
namespace {

constexpr int kSortThreads = 512, kEach = 4, kRun = kSortThreads * kEach;
constexpr int kMergeThreads = 256;

struct alignas(16) Key {
  uint64_t high, low;
  MIXPL_DEVICE bool is_before(Key other) const {
    return (high < other.high) | ((high == other.high) & (low < other.low));
  }
};

/// Keys of sorted runs, and which candidates they are of.
struct Runs {
  Key* keys;       // [N, capacity]; null: these are no runs but the ranks
  int32_t* items;  // [N, capacity]
};

struct SortView {
  CandidatesView in;
  Runs to;
  RankedView out;

  MIXPL_DEVICE void put(int64_t image, int64_t place, Key key, int32_t item) const {
    const int64_t first = image * in.capacity, at = first + place;
    if (to.keys) {
      to.keys[at] = key;
      to.items[at] = item;
      return;
    }
    const Candidate& c = in.items[first + item];
    out.boxes[at] = c.box;
    out.scores[at] = c.score;
    out.labels[at] = c.label;
    out.origin[at] = static_cast<int32_t>(key.low & 0xffffffffu);
  }
};

/// Where keys[i] comes when runs of `width`, a power of two, are merged two by two.
MIXPL_DEVICE int32_t merged_place(const Key* keys, int32_t count, int32_t i, int32_t width,
                                  Key key) {
  const int32_t other = (i & ~(width - 1)) ^ width;
  const Key* run = keys + other;
  int32_t before = 0;
  for (int32_t step = width; step > 0; step /= 2)
    if (before + step <= width && other + before + step <= count &&
        run[before + step - 1].is_before(key))
      before += step;
  return (i & ~width) + before;
}

MIXPL_KERNEL __launch_bounds__(kSortThreads, 2) sort_kernel(SortView v) {
  const int64_t image = blockIdx.y, n = v.in.count(image), first = int64_t{blockIdx.x} * kRun;
  if (first >= n) return;
  const int32_t count = static_cast<int32_t>(n - first < kRun ? n - first : kRun);
  const Candidate* from = v.in.items + image * v.in.capacity + first;
  MIXPL_SHARED(Key, keys, kRun);
  MIXPL_SHARED(uint16_t, items, kRun);
  for (int32_t i = threadIdx.x; i < count; i += kSortThreads) {
    keys[i] = {from[i].high, from[i].low};
    items[i] = static_cast<uint16_t>(i);
  }
  sync_block();
  for (int32_t width = 1; width < count; width *= 2) {
    Key own[kEach];
    uint16_t item[kEach];
    int32_t place[kEach];
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      const int32_t i = u * kSortThreads + threadIdx.x;
      if (i >= count) continue;
      own[u] = keys[i];
      item[u] = items[i];
      place[u] = merged_place(keys, count, i, width, own[u]);
    }
    sync_block();
#pragma unroll
    for (int u = 0; u < kEach; ++u) {
      if (u * kSortThreads + static_cast<int>(threadIdx.x) >= count) continue;
      keys[place[u]] = own[u];
      items[place[u]] = item[u];
    }
    sync_block();
  }
  for (int32_t i = threadIdx.x; i < count; i += kSortThreads)
    v.put(image, first + i, keys[i], static_cast<int32_t>(first) + items[i]);
}

MIXPL_KERNEL __launch_bounds__(kMergeThreads) merge_kernel(SortView v, Runs from, int32_t width) {
  const int64_t image = blockIdx.y, first = image * v.in.capacity;
  const int32_t n = static_cast<int32_t>(v.in.count(image));
  const int64_t i = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x;
  if (i >= n) return;
  const Key own = from.keys[first + i];
  v.put(image, merged_place(from.keys + first, n, static_cast<int32_t>(i), width, own), own,
        from.items[first + i]);
}

}  // namespace

Ranked rank_candidates(const Candidates& c) {
  const Device device = c.items.device();
  const auto numbers = [&](DType type) {
    return Tensor::empty({c.images, c.capacity}, type, device);
  };
  Ranked out{Tensor::empty({c.images, c.capacity, 4}, DType::f32, device), numbers(DType::f32),
             numbers(DType::i32), numbers(DType::i32), c.counts};
  // How many candidates there are the device knows: as many merges as all places need.
  const bool merges = c.capacity > kRun;
  const int64_t places = merges ? c.images * c.capacity : 0;
  const Tensor keys =
      Tensor::empty({2 * places * static_cast<int64_t>(sizeof(Key))}, DType::u8, device);
  const Tensor items = Tensor::empty({2 * places}, DType::i32, device);
  Runs from{reinterpret_cast<Key*>(keys.raw()), items.data<int32_t>()};
  Runs to{from.keys + places, from.items + places};

  const auto grid = [&](int each) {
    return dim3(static_cast<unsigned>((c.capacity + each - 1) / each),
                static_cast<unsigned>(c.images));
  };
  SortView view{c.view(), merges ? from : Runs{}, RankedView(out)};
  launch(sort_kernel, grid(kRun), dim3(kSortThreads), 0, view);
  for (int64_t width = kRun; width < c.capacity; width *= 2) {
    view.to = 2 * width < c.capacity ? to : Runs{};
    launch(merge_kernel, grid(kMergeThreads), dim3(kMergeThreads), 0, view, from,
           static_cast<int32_t>(width));
    std::swap(from, to);
  }
  return out;
}

}  // namespace mixpl::cuda
