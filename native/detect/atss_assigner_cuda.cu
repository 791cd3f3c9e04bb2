#include "detect/atss_assigner.h"
#include "detect/select_cuda.h"

namespace mixpl::cuda {
namespace {

// What the kernels tell each other: per box and level the bound of its candidates' keys, and per
// box the IoU from which they are positive.
struct Bounds {
  uint64_t* keys;      // [G, L]
  double* thresholds;  // [G]
};

// Orders the anchors by distance, then by index.
struct NearestKey {
  const AtssView& view;
  int64_t image, first;
  Box box;

  MIXPL_DEVICE uint64_t operator()(int64_t i) const {
    return view.is_valid(image, first + i)
               ? key_of(view.distance(first + i, box), static_cast<int32_t>(i))
               : kNoKey;
  }
};

// One block a box and level.
MIXPL_KERNEL bound_candidates(AtssView view, Bounds bounds) {
  const int32_t box = blockIdx.x;
  const int level = blockIdx.y;
  const int64_t image = view.truth.image_of(box, view.images);
  const NearestKey key{view, image, view.pyramid.first[level], view.truth.boxes[box]};
  const uint64_t bound = least_keys(view.pyramid.size(level), view.top_k, key);
  if (threadIdx.x == 0) bounds.keys[box * view.pyramid.levels + level] = bound;
}

// One block a box: the mean of its candidates' IoUs plus their deviation. Sums of f32 in f64 are
// next to exact, so that the CPU's order of adding gives the same threshold.
MIXPL_KERNEL find_thresholds(AtssView view, Bounds bounds) {
  const int32_t box = blockIdx.x;
  const int64_t image = view.truth.image_of(box, view.images);
  const Box own = view.truth.boxes[box];
  const auto sum_over_candidates = [&](auto&& term) {
    double sum = 0;
    for (int level = 0; level < view.pyramid.levels; ++level) {
      const NearestKey key{view, image, view.pyramid.first[level], own};
      const uint64_t bound = bounds.keys[box * view.pyramid.levels + level];
      for (int64_t i = threadIdx.x; i < view.pyramid.size(level); i += blockDim.x)
        if (key(i) <= bound) sum += term(box_iou(view.anchors[key.first + i], own));
    }
    return block_sum(sum);
  };
  const double n = sum_over_candidates([](float) { return 1.0; });
  const double mean = sum_over_candidates([](float iou) { return double(iou); }) / n;
  const double squares =
      sum_over_candidates([mean](float iou) { return (iou - mean) * (iou - mean); });
  if (threadIdx.x == 0)
    bounds.thresholds[box] = n == 0 ? INFINITY : mean + (n > 1 ? sqrt(squares / (n - 1)) : 0.0);
}

// Each anchor asks the boxes of its image in turn.
struct AssignAnchor {
  AtssView view;
  Bounds bounds;

  MIXPL_DEVICE void operator()(int64_t at) const {
    const Place p = place_of(view.pyramid, at);
    int32_t own = kIgnored;
    if (view.is_valid(p.image, p.in_row)) {
      own = kNegative;
      float best = -1;
      const Box anchor = view.anchors[p.in_row];
      const int32_t first = view.truth.begin(p.image), last = view.truth.begin(p.image + 1);
      for (int32_t j = first; j < last; ++j) {
        const Box box = view.truth.boxes[j];
        const uint64_t key = key_of(view.distance(p.in_row, box), static_cast<int32_t>(p.cell));
        if (key > bounds.keys[j * view.pyramid.levels + p.level]) continue;
        const float iou = box_iou(anchor, box);
        if (!(iou >= bounds.thresholds[j]) || !holds_centre(box, anchor) || !(iou > best)) continue;
        best = iou;
        own = j - first;
      }
    }
    view.assigned[at] = own;
  }
};

}  // namespace

void assign_atss(const AtssView& view, int64_t boxes) {
  const int levels = view.pyramid.levels;
  const Device device = Device::cuda(current_device());
  const Tensor keys = Tensor::empty({boxes, levels}, DType::i64, device),
               thresholds = Tensor::empty({boxes, 2}, DType::f32, device);  // as f64
  const Bounds bounds{static_cast<uint64_t*>(keys.raw()), static_cast<double*>(thresholds.raw())};
  launch(bound_candidates, dim3(static_cast<unsigned>(boxes), static_cast<unsigned>(levels)),
         dim3(kSelectThreads), 0, view, bounds);
  launch(find_thresholds, dim3(static_cast<unsigned>(boxes)), dim3(kSelectThreads), 0, view,
         bounds);
  for_each(view.images * view.pyramid.count(), AssignAnchor{view, bounds});
}

}  // namespace mixpl::cuda
