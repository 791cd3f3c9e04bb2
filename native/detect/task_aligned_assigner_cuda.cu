#include "detect/select_cuda.h"
#include "detect/task_aligned_assigner.h"

namespace mixpl::cuda {
namespace {

// What the kernels tell each other, per box.
struct Boxes {
  uint64_t* bounds;              // of its candidates' keys
  int32_t *most_fit, *most_iou;  // of the anchors it has: bits, which order as the numbers do
};

// Orders anchors by falling fit, then by index; those that do not fit take no part.
struct BestKey {
  const AlignView& view;
  int64_t image;
  int32_t box;

  MIXPL_DEVICE uint64_t operator()(int64_t i) const {
    const int level = view.pyramid.level_of(i);
    const int64_t cell = i - view.pyramid.first[level];
    const Place place{image, i, cell, image * view.pyramid.size(level) + cell, level};
    return key(view.fit_of(place, box), i);
  }
  MIXPL_DEVICE static uint64_t key(const AlignView::Fit& own, int64_t i) {
    return own.fit > 0 ? key_of(-own.fit, static_cast<int32_t>(i)) : kNoKey;
  }
};

// One block a box.
MIXPL_KERNEL bound_candidates(AlignView view, Boxes boxes) {
  const int32_t box = blockIdx.x;
  const BestKey key{view, view.truth.image_of(box, view.images), box};
  const uint64_t bound = least_keys(view.pyramid.count(), view.options.top, key);
  if (threadIdx.x > 0) return;
  boxes.bounds[box] = bound;
  boxes.most_fit[box] = boxes.most_iou[box] = 0;
}

// Each anchor asks the boxes of its image in turn.
struct AssignAnchor {
  AlignView view;
  Boxes boxes;

  MIXPL_DEVICE void operator()(int64_t at) const {
    const Place p = place_of(view.pyramid, at);
    int32_t own = -1;
    AlignView::Fit best{0, 0};
    const int32_t first = view.truth.begin(p.image), last = view.truth.begin(p.image + 1);
    for (int32_t j = first; j < last; ++j) {
      if (!holds_centre(view.truth.boxes[j], view.anchors[p.in_row])) continue;
      const AlignView::Fit fit = view.fit_of(p, j);
      if (BestKey::key(fit, p.in_row) > boxes.bounds[j] || !(fit.iou > best.iou)) continue;
      best = fit;
      own = j;
    }
    view.assigned[at] = own >= 0 ? own - first : view.is_valid(p) ? kNegative : kIgnored;
    if (own < 0) return;
    atomic_max(&boxes.most_fit[own], std::bit_cast<int32_t>(best.fit));
    atomic_max(&boxes.most_iou[own], std::bit_cast<int32_t>(best.iou));
  }
};

struct AnchorQuality {
  AlignView view;
  Boxes boxes;

  MIXPL_DEVICE void operator()(int64_t at) const {
    const Place p = place_of(view.pyramid, at);
    float quality = 0;
    if (view.assigned[at] >= 0) {
      const int32_t own = view.truth.begin(p.image) + view.assigned[at];
      quality =
          AlignView::quality_of(view.fit_of(p, own), std::bit_cast<float>(boxes.most_fit[own]),
                                std::bit_cast<float>(boxes.most_iou[own]));
    }
    view.quality[p.level][p.at] = quality;
  }
};

}  // namespace

void assign_task_aligned(const AlignView& view, int64_t count) {
  const Device device = Device::cuda(current_device());
  const Tensor bounds = Tensor::empty({count}, DType::i64, device),
               most = Tensor::empty({2, count}, DType::i32, device);
  const Boxes boxes{static_cast<uint64_t*>(bounds.raw()), most.data<int32_t>(),
                    most.data<int32_t>() + count};
  launch(bound_candidates, dim3(static_cast<unsigned>(count)), dim3(kSelectThreads), 0, view,
         boxes);
  const int64_t anchors = view.images * view.pyramid.count();
  for_each(anchors, AssignAnchor{view, boxes});
  for_each(anchors, AnchorQuality{view, boxes});
}

}  // namespace mixpl::cuda
