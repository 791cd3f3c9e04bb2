#include "detect/paa_assigner.h"
#include "detect/paa_math.h"
#include "detect/select_cuda.h"

namespace mixpl::cuda {
namespace {

// What the kernels tell each other, and where one box's candidates are sorted and fitted.
struct Work {
  uint64_t* bounds;                  // [G, L], of the candidates' keys
  int64_t capacity;                  // candidates of a box at most
  uint64_t *found, *sorted;          // [G, capacity]
  double *losses, *first, *density;  // [G, capacity]
};

// Orders the anchors of a box on a level by loss, then by index.
struct LossKey {
  const PaaView& view;
  int64_t image, first;
  int32_t own;  // the box in its image

  MIXPL_DEVICE uint64_t operator()(int64_t i) const {
    return view.is_candidate(image, first + i, own)
               ? key_of(view.losses[image * view.pyramid.count() + first + i],
                        static_cast<int32_t>(first + i))
               : kNoKey;
  }
};

MIXPL_DEVICE LossKey key_on(const PaaView& view, int32_t box, int level) {
  const int64_t image = view.truth.image_of(box, view.images);
  return {view, image, view.pyramid.first[level], box - view.truth.begin(image)};
}

struct DropAll {
  PaaView view;
  MIXPL_DEVICE void operator()(int64_t i) const {
    view.kept[i] = view.assigned[i] >= 0 ? kNegative : view.assigned[i];
  }
};

// One block a box and level.
MIXPL_KERNEL bound_candidates(PaaView view, Work work) {
  const int32_t box = blockIdx.x;
  const int level = blockIdx.y;
  const uint64_t bound = least_keys(view.pyramid.size(level), view.top_k, key_on(view, box, level));
  if (threadIdx.x == 0) work.bounds[box * view.pyramid.levels + level] = bound;
}

// Lists a box's candidates in rising order; returns their number. The list is found in any order:
// it is the sorting, each key by how many are below it, that makes it the same on every run.
MIXPL_DEVICE int32_t sort_candidates(const PaaView& view, int32_t box, uint64_t* found,
                                     uint64_t* sorted, const uint64_t* bounds) {
  MIXPL_SHARED(int32_t, number, 1);
  if (threadIdx.x == 0) number[0] = 0;
  sync_block();
  for (int level = 0; level < view.pyramid.levels; ++level) {
    const LossKey key = key_on(view, box, level);
    for (int64_t i = threadIdx.x; i < view.pyramid.size(level); i += blockDim.x) {
      const uint64_t k = key(i);
      if (k <= bounds[level]) found[atomic_add(&number[0], 1)] = k;
    }
  }
  sync_block();
  const int32_t n = number[0];
  for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
    int32_t below = 0;
    for (int32_t j = 0; j < n; ++j) below += found[j] < found[i];
    sorted[below] = found[i];
  }
  sync_block();
  return n;
}

// One block a box. What depends on the order of adding is done by every thread for itself, one
// number after another, as the CPU does it; the logarithms are shared out.
MIXPL_KERNEL keep_better_part(PaaView view, Work work) {
  const int32_t box = blockIdx.x;
  const int64_t image = view.truth.image_of(box, view.images), at = box * work.capacity;
  const uint64_t* sorted = work.sorted + at;
  double *x = work.losses + at, *first = work.first + at, *density = work.density + at;
  const int32_t n = sort_candidates(view, box, work.found + at, work.sorted + at,
                                    work.bounds + box * view.pyramid.levels);
  if (n < 2) return;
  const int64_t row = image * view.pyramid.count();
  for (int32_t i = threadIdx.x; i < n; i += blockDim.x)
    x[i] = view.losses[row + static_cast<uint32_t>(sorted[i])];
  sync_block();

  Mixture mixture(x[0], x[n - 1]);
  double before = -INFINITY;
  for (int round = 0; round < kMixtureRounds; ++round) {
    for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
      density[i] = mixture.log_density(x[i]);
      first[i] = mixture.first_share(x[i], density[i]);
    }
    sync_block();
    double likelihood = 0;
    for (int32_t i = 0; i < n; ++i) likelihood += density[i];
    likelihood /= static_cast<double>(n);
    mixture.fit(0, x, first, n);
    mixture.fit(1, x, first, n);
    sync_block();  // all have read
    if (fabs(likelihood - before) < kMixtureTolerance) break;
    before = likelihood;
  }

  for (int32_t i = threadIdx.x; i < n; i += blockDim.x)
    density[i] = mixture.is_first(x[i]) ? mixture.log_density(x[i]) : -INFINITY;
  sync_block();
  int32_t densest = -1;
  double most = -INFINITY;
  for (int32_t i = 0; i < n; ++i)
    if (density[i] > most) {
      most = density[i];
      densest = i;
    }
  for (int32_t i = threadIdx.x; i <= densest; i += blockDim.x)
    if (mixture.is_first(x[i]))
      view.kept[row + static_cast<uint32_t>(sorted[i])] = box - view.truth.begin(image);
}

}  // namespace

void fill_paa_costs(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                    const Anchors& anchors, const Truth& truth, const Tensor& assigned,
                    int64_t classes, const PaaCostOptions& options, Tensor& costs) {
  if (logits.empty()) return;
  dispatch_floating(logits[0].dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(
        costs.numel(),
        PaaCostView<T>{anchors.pyramid, pointers<const T, T>(logits), pointers<const T, T>(deltas),
                       reinterpret_cast<const Box*>(anchors.all.data<float>()), TruthView(truth),
                       assigned.data<int32_t>(), classes, options, costs.data<float>()});
  });
}

void select_paa(const PaaView& view, int64_t boxes) {
  const int levels = view.pyramid.levels;
  int64_t capacity = 0;
  for (int l = 0; l < levels; ++l)
    capacity += view.pyramid.size(l) < view.top_k ? view.pyramid.size(l) : view.top_k;
  const int64_t each = boxes * capacity;
  const Tensor memory = scratch(8 * (boxes * levels + 5 * each));
  auto* words = static_cast<uint64_t*>(memory.raw());
  auto* numbers = reinterpret_cast<double*>(words + boxes * levels + 2 * each);
  const Work work{words,   capacity,       words + boxes * levels, words + boxes * levels + each,
                  numbers, numbers + each, numbers + 2 * each};
  for_each(view.images * view.pyramid.count(), DropAll{view});
  launch(bound_candidates, dim3(static_cast<unsigned>(boxes), static_cast<unsigned>(levels)),
         dim3(kSelectThreads), 0, view, work);
  launch(keep_better_part, dim3(static_cast<unsigned>(boxes)), dim3(kSelectThreads), 0, view, work);
}

}  // namespace mixpl::cuda
