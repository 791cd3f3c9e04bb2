#include "detect/proposals.h"
#include "detect/pyramid.h"
#include "detect/score_order.h"
#include "detect/suppression_cuda.h"
#include "detect/top_items_cuda.h"

namespace mixpl::cuda {
namespace {

// Items are the anchors of a level of an image: segment = image * levels + level.
struct LogitsView {
  Numbers logits[kMostLevels];
  int64_t anchors[kMostLevels];
  int levels;
  int64_t nms_pre;

  MIXPL_DEVICE int64_t length(int segment) const { return anchors[segment % levels]; }
  MIXPL_DEVICE int64_t wanted(int) const { return nms_pre; }
  MIXPL_DEVICE float logit(int segment, int64_t anchor) const {
    const int l = segment % levels;
    return logits[l][segment / levels * anchors[l] + anchor];
  }
  MIXPL_DEVICE uint64_t item(int segment, int64_t anchor) const {
    const float x = logit(segment, anchor);
    return x != x ? kNoItem : ordered_item(descending_key(x), anchor);
  }
};

struct EmitView {
  LogitsView view;
  BoxDecoderView boxes[kMostLevels];
  SelectionView selected;
  const ImageSize* sizes;
  ProposalOptions options;
  CandidatesView out;

  MIXPL_DEVICE void operator()(int64_t slot) const {
    const int64_t segment = slot / selected.most;
    if (slot % selected.most >= selected.counts[segment]) return;
    const int64_t image = segment / view.levels;
    const int l = static_cast<int>(segment % view.levels);
    const uint64_t item = selected.items[slot];
    const Box box = clip_box(boxes[l](image, index_of(item)), sizes[image]);
    const float logit = view.logit(static_cast<int>(segment), index_of(item));
    const float score = 1.0f / (1.0f + expf(-logit));
    if (!large_enough(box, options) || !(score >= options.score_thr)) return;
    out.add(image, {uint64_t{descending_key(score)} << 32 | static_cast<uint64_t>(l), item, box,
                    score, l});
  }
};
static_assert(sizeof(EmitView) <= 4000);  // travels as an argument

struct RegionsView {
  const Box* ranked;
  int64_t capacity;
  const int32_t *ranks, *counts;
  int64_t most;
  Box* boxes;
  int32_t* image;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / most;
    const bool used = i % most < counts[n];
    boxes[i] = used ? ranked[n * capacity + ranks[i]] : Box{0, 0, 0, 0};
    image[i] = used ? static_cast<int32_t>(n) : -1;
  }
};

}  // namespace

Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& o) {
  const int64_t images = sizes.size(0);
  const Device device = levels[0].logits.device();
  LogitsView view{};
  view.levels = static_cast<int>(levels.size());
  view.nms_pre = o.nms_pre;
  int64_t anchors = 0;  // of the largest level
  int64_t capacity = 0;
  for (size_t l = 0; l < levels.size(); ++l) {
    view.logits[l] = Numbers::of(levels[l].logits);
    view.anchors[l] = levels[l].anchors();
    anchors = std::max(anchors, levels[l].anchors());
    capacity += std::min(o.nms_pre, levels[l].anchors());
  }
  const int64_t most = std::min(o.nms_pre, anchors);
  const Selection selected = top_items_of(view, images * view.levels, anchors, most, device);

  const Candidates candidates(images, capacity, device);
  EmitView emit{view, {}, SelectionView(selected), sizes_in(sizes), o, candidates.view()};
  for (size_t l = 0; l < levels.size(); ++l) emit.boxes[l] = levels[l].boxes.view();
  for_each(images * view.levels * most, emit);

  const Ranked ranked = rank_candidates(candidates);
  const Kept kept = suppress(ranked, view.levels, o.nms_iou, o.max_per_image);
  Regions out{Tensor::empty({images * kept.most(), 4}, DType::f32, device),
              Tensor::empty({images * kept.most()}, DType::i32, device), kept.counts};
  for_each(out.size(),
           RegionsView{reinterpret_cast<const Box*>(ranked.boxes.data<float>()), ranked.capacity(),
                       kept.ranks.data<int32_t>(), kept.counts.data<int32_t>(), kept.most(),
                       reinterpret_cast<Box*>(out.boxes.data<float>()), out.image.data<int32_t>()});
  return out;
}

}  // namespace mixpl::cuda
