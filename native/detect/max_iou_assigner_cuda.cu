#include <bit>

#include "core/cuda/kernel.h"
#include "detect/max_iou_assigner.h"

namespace mixpl::cuda {
namespace {

constexpr int kThreads = 256;  // anchors of a block, and boxes that it keeps in shared memory

struct Problem {
  const Box* anchors;
  int64_t next_image;  // from an image's anchors to the next one's; 0: they are the same
  int32_t count;       // anchors of an image
  const uint8_t* valid;
  TruthView truth;
  MaxIouOptions options;
  int32_t* highest;  // per box the bits of its best IoU: not negative, so they order as the numbers
  int32_t* assigned;
};

// The anchor of a thread.
struct Anchor {
  int64_t at;  // in [N, A]
  bool exists, used;
  Box box;
  float area;

  MIXPL_DEVICE explicit Anchor(const Problem& p) {
    const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    at = blockIdx.y * int64_t{p.count} + i;
    exists = i < p.count;
    used = exists && (!p.valid || p.valid[at]);
    box = used ? p.anchors[blockIdx.y * p.next_image + i] : Box{0, 0, 0, 0};
    area = box_area(box);
  }
};

// Each box's best IoU with an anchor; `highest` is 0 before. A maximum does not depend on the
// order.
MIXPL_KERNEL best_of_boxes(Problem p) {
  MIXPL_SHARED(Box, boxes, kThreads);
  MIXPL_SHARED(int32_t, highest, kThreads);
  const Anchor anchor(p);
  const int thread = threadIdx.x, first = p.truth.begin(blockIdx.y),
            last = first + p.truth.count(blockIdx.y);
  for (int tile = first; tile < last; tile += kThreads) {
    const int size = last - tile < kThreads ? last - tile : kThreads;
    if (thread < size) {
      boxes[thread] = p.truth.boxes[tile + thread];
      highest[thread] = 0;
    }
    sync_block();
    for (int j = 0; j < size; ++j) {
      const float intersection = anchor.used ? box_intersection(anchor.box, boxes[j]) : 0.0f;
      if (!any(intersection > 0)) continue;  // most warps are far from most boxes
      const float iou = iou_of_areas(anchor.area, box_area(boxes[j]), intersection);
      const int32_t most = warp_max(iou > 0 ? std::bit_cast<int32_t>(iou) : 0);
      if (lane() == 0) atomic_max(&highest[j], most);
    }
    sync_block();
    if (thread < size && highest[thread] > 0)
      atomic_max(&p.highest[tile + thread], highest[thread]);
    sync_block();
  }
}

// Each anchor's box: its own best, and the last box, in order, whose best IoU it has.
MIXPL_KERNEL assign_anchors(Problem p) {
  MIXPL_SHARED(Box, boxes, kThreads);
  MIXPL_SHARED(float, highest, kThreads);
  const Anchor anchor(p);
  const MaxIouOptions& o = p.options;
  const bool restore = o.low_quality == LowQuality::restore_best;
  const int thread = threadIdx.x, first = p.truth.begin(blockIdx.y),
            last = first + p.truth.count(blockIdx.y);
  float best = -1;
  int32_t own = 0, tied = -1;
  for (int tile = first; tile < last; tile += kThreads) {
    const int size = last - tile < kThreads ? last - tile : kThreads;
    if (thread < size) {
      boxes[thread] = p.truth.boxes[tile + thread];
      const float most = p.highest ? std::bit_cast<float>(p.highest[tile + thread]) : -1.0f;
      highest[thread] = restore || most >= o.min_pos_iou ? most : -1.0f;  // -1: nothing ties
    }
    sync_block();
    for (int j = 0; j < size; ++j) {
      const float iou =
          iou_of_areas(anchor.area, box_area(boxes[j]), box_intersection(anchor.box, boxes[j]));
      const int32_t box = tile - first + j;
      if (iou > best) {
        best = iou;
        own = box;
      }
      if (iou == highest[j]) tied = box;
    }
    sync_block();
  }
  if (!anchor.exists) return;
  p.assigned[anchor.at] = !anchor.used ? kIgnored
                          : tied < 0   ? assignment_of(best, own, o)
                          : restore    ? own
                                       : tied;
}

}  // namespace

void assign_max_iou(const Tensor& anchors, const Truth& truth, const Tensor& valid,
                    const MaxIouOptions& options, Tensor& assigned) {
  const int64_t images = truth.images(), count = assigned.size(1);
  Tensor highest;
  if (options.match_low_quality) {
    highest = Tensor::empty({truth.total()}, DType::i32, assigned.device());
    memset_device(highest.raw(), 0, highest.nbytes());
  }
  const Problem problem{reinterpret_cast<const Box*>(anchors.data<float>()),
                        anchors.rank() == 3 ? count : 0,
                        static_cast<int32_t>(count),
                        valid.defined() ? valid.data<uint8_t>() : nullptr,
                        TruthView(truth),
                        options,
                        highest.defined() ? highest.data<int32_t>() : nullptr,
                        assigned.data<int32_t>()};
  const dim3 grid(static_cast<unsigned>((count + kThreads - 1) / kThreads),
                  static_cast<unsigned>(images));
  if (highest.defined()) launch(best_of_boxes, grid, dim3(kThreads), 0, problem);
  launch(assign_anchors, grid, dim3(kThreads), 0, problem);
}

}  // namespace mixpl::cuda
