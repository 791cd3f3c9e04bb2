#include <algorithm>

#include "core/cuda/kernel.h"
#include "detect/linear_assignment.h"
#include "detect/set_matching.h"
#include "detect/set_matching_costs.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;
// Of an Assignment in shared memory: every GPU has 64 KiB. Enough for 2,560 queries and objects.
constexpr int64_t kMostShared = 60 << 10;
// What does not fit (all tokens of the pyramid) is as many columns that each scan waits for.
constexpr int kThreadsOfMany = 1024;

// Costs of an image are a matrix as its assignment reads it, row after row; those of images, then
// of layers, follow each other.
MIXPL_DEVICE int64_t first_cost(const MatchView& view, int64_t layer, int64_t image) {
  return (layer * view.objects + view.truth.begin(image)) * view.queries;
}

// A block for as many costs as there are queries, grid.y for layers.
template <typename T>
MIXPL_KERNEL __launch_bounds__(kThreads)
    fill_costs(MatchView view, bool always_by_object, float* costs) {
  const int32_t part = blockIdx.x;
  const int64_t layer = blockIdx.y, image = view.truth.image_of(part, view.images);
  const int32_t begin = view.truth.begin(image), objects = view.truth.count(image);
  const bool by_object = always_by_object || view.objects_are_rows(image);
  const MatchView::Layer& from = view.layers[layer];
  const T* logits = static_cast<const T*>(from.logits);
  const ImageSize size = view.sizes[image];
  const bool xyxy = view.options.xyxy_l1;
  float* own = costs + first_cost(view, layer, image);
  const int64_t first = (part - begin) * view.queries;
  for (int64_t t = threadIdx.x; t < view.queries; t += kThreads) {
    const int64_t at = first + t;
    const int64_t query = image * view.queries + (by_object ? t : at / objects);
    const int32_t object = by_object ? part : begin + static_cast<int32_t>(at % objects);
    const float logit = float(logits[query * view.classes + view.truth.labels[object]]);
    own[at] = pair_cost(logit, compared_query(from.boxes[query], size, xyxy),
                        compared_object(view.truth.boxes[object], size, xyxy), view.options);
  }
}

MIXPL_DEVICE Reach warp_nearest(Reach reach) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) {
    const Reach other{shfl_xor(reach.length, mask), shfl_xor(reach.rank, mask)};
    if (other.before(reach)) reach = other;
  }
  return reach;
}

// Over the block, in every thread. One barrier a call: two sets of partial results take turns, so
// that a warp that is ahead does not write what another still reads.
template <int kBlock>
class BlockNearest {
 public:
  MIXPL_DEVICE BlockNearest(double* lengths, int32_t* ranks) : lengths_(lengths), ranks_(ranks) {}
  static constexpr int kWarps = kBlock / 32;

  MIXPL_DEVICE Reach operator()(Reach reach) {
    reach = warp_nearest(reach);
    const int set = turn_ * kWarps;
    turn_ ^= 1;
    if (lane() == 0) {
      lengths_[set + warp()] = reach.length;
      ranks_[set + warp()] = reach.rank;
    }
    sync_block();
    reach = {lengths_[set], ranks_[set]};
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const Reach other{lengths_[set + w], ranks_[set + w]};
      if (other.before(reach)) reach = other;
    }
    return reach;
  }

 private:
  double* lengths_;
  int32_t* ranks_;
  int turn_ = 0;
};

// A thread keeps to its columns: what it knows of them needs no barrier.
template <int kBlock>
MIXPL_DEVICE void assign(const Assignment& state, const float* costs) {
  MIXPL_SHARED(double, lengths, 2 * BlockNearest<kBlock>::kWarps);
  MIXPL_SHARED(int32_t, ranks, 2 * BlockNearest<kBlock>::kWarps);
  BlockNearest<kBlock> nearest(lengths, ranks);
  const int thread = threadIdx.x;
  const auto scan = [&](int32_t row, double base, bool first) {
    const float* own = costs + int64_t{row} * state.columns;
    Reach best = Reach::never();
    for (int32_t j = thread; j < state.columns; j += kBlock) {
      const Reach reach = state.reach(row, base, load_read_only(own + j), j, first);
      if (reach.before(best)) best = reach;
    }
    return nearest(best);
  };
  for (int32_t i = thread; i < state.rows; i += kBlock) state.clear_row(i);
  for (int32_t j = thread; j < state.columns; j += kBlock) state.clear_column(j);
  for (int32_t row = 0; row < state.rows; ++row) {
    sync_block();  // for owners and potentials of the row before
    int32_t closed = 0;
    Reach best = scan(row, 0, true);
    while (best.owned()) {
      const int32_t next = state.owner[best.column()];
      if (best.column() % kBlock == thread) state.close(closed, best);
      ++closed;
      best = scan(next, best.length - state.u[next], false);
    }
    for (int32_t k = thread; k < closed; k += kBlock) state.shift(k, best.length);
    if (closed) sync_block();
    if (thread == 0) state.flip(row, best);
  }
  sync_block();
}

// One block a problem: an image of a layer. State of the assignments is in shared memory, or,
// `bytes` for each, in `memory`.
template <bool kShared, int kBlock>
MIXPL_KERNEL __launch_bounds__(kBlock)
    match_images(MatchView view, const float* costs, uint8_t* memory, int64_t bytes) {
  const int64_t layer = blockIdx.y, image = blockIdx.x;
  const bool by_object = view.objects_are_rows(image);
  const int32_t objects = view.truth.count(image), queries = static_cast<int32_t>(view.queries);
  const int32_t rows = by_object ? objects : queries, columns = by_object ? queries : objects;
  Assignment state;
  if constexpr (kShared) {
    MIXPL_DYNAMIC_SHARED(double, shared);
    state = Assignment(shared, rows, columns);
  } else {
    state = Assignment(memory + (layer * view.images + image) * bytes, rows, columns);
  }
  if (rows) assign<kBlock>(state, costs + first_cost(view, layer, image));
  for (int32_t q = threadIdx.x; q < queries; q += kBlock)
    view.set_target(view.layers[layer], image, q,
                    !rows       ? -1
                    : by_object ? state.owner[q]
                                : state.own[q]);
}

void fill_costs(const MatchView& view, bool always_by_object, float* costs) {
  dispatch_floating(view.logits, [&](auto tag) {
    const dim3 grid(static_cast<unsigned>(view.objects), static_cast<unsigned>(view.num_layers));
    launch(fill_costs<decltype(tag)>, Grid(grid), kThreads, 0, view, always_by_object, costs);
  });
}

}  // namespace

void query_costs(const MatchView& view, float* costs) { fill_costs(view, true, costs); }

void match_queries(const MatchView& view) {
  const Tensor costs = scratch(view.num_layers * view.objects * view.queries * sizeof(float));
  float* const numbers = static_cast<float*>(costs.raw());
  fill_costs(view, false, numbers);
  const dim3 grid(static_cast<unsigned>(view.images), static_cast<unsigned>(view.num_layers));
  const int64_t bytes = Assignment::bytes(view.most, view.queries);  // rows or columns, either way
  if (bytes <= kMostShared) {
    launch(match_images<true, kThreads>, Grid(grid), kThreads, bytes, view, numbers, nullptr,
           int64_t{0});
    return;
  }
  const Tensor states = scratch(view.num_layers * view.images * bytes);
  launch(match_images<false, kThreadsOfMany>, Grid(grid), kThreadsOfMany, 0, view, numbers,
         static_cast<uint8_t*>(states.raw()), bytes);
}

}  // namespace mixpl::cuda
