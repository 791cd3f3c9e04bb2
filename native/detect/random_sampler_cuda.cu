#include "detect/max_iou_assigner.h"
#include "detect/random_sampler_cuda.h"

namespace mixpl::cuda {
namespace {

struct TicketsView {
  const int32_t* assigned;  // [N, boxes]
  int64_t boxes;
  Philox random;
  bool positive;
  int64_t most;
  const int32_t* taken;  // places of each image that are taken already; null: none

  MIXPL_DEVICE int64_t length(int) const { return boxes; }
  MIXPL_DEVICE int64_t wanted(int image) const { return taken ? most - taken[image] : most; }
  MIXPL_DEVICE uint64_t item(int image, int64_t box) const {
    const int32_t a = assigned[image * boxes + box];
    if (positive ? a < 0 : a != kNegative) return kNoItem;
    return ordered_item(ticket_of(of_image(random, image), box), box);
  }
};

}  // namespace

Drawn sample_boxes(const Tensor& assigned, const SamplerOptions& o, const Philox& random) {
  const int64_t images = assigned.size(0), boxes = assigned.size(1);
  TicketsView view{assigned.data<int32_t>(), boxes, random, true, o.most_positives(), nullptr};
  const auto draw = [&] {
    return top_items_of(view, images, boxes, std::min(view.most, boxes), assigned.device());
  };
  Drawn out;
  out.positives = draw();
  view.positive = false;
  view.most = o.size;
  view.taken = out.positives.counts.data<int32_t>();
  out.negatives = draw();
  return out;
}

}  // namespace mixpl::cuda
