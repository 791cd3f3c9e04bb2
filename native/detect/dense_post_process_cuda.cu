#include "detect/dense_post_process.h"
#include "detect/pyramid.h"
#include "detect/score_order.h"
#include "detect/suppression_cuda.h"
#include "detect/top_items_cuda.h"

namespace mixpl::cuda {
namespace {

// All levels of all images: segment = image * levels + level.
struct LevelsView {
  DenseScores scores[kMostLevels];
  int levels;
  int64_t nms_pre;

  MIXPL_DEVICE int64_t wanted(int) const { return nms_pre; }
  /// What the pair's score is as far as it decides who stays; NaN where it is too low.
  MIXPL_DEVICE static float deciding(const DenseScores& level, int64_t image, int64_t pair,
                                     float logit) {
    if (!(logit > level.sieve)) return NAN;
    const float score = level.deciding(logit, image, pair);
    return score > level.score_thr ? score : NAN;
  }
  MIXPL_DEVICE static float deciding(const DenseScores& level, int64_t image, int64_t pair) {
    return deciding(level, image, pair, level.logits[image * level.anchors * level.classes + pair]);
  }
};

// The pairs of one segment.
struct PairPacks : top_items::NumberRow {
  DenseScores level;
  int64_t image;

  MIXPL_DEVICE PairPacks(const DenseScores& level, int64_t image)
      : NumberRow(level.logits, image * level.anchors * level.classes,
                  level.anchors * level.classes),
        level(level),
        image(image) {}
  MIXPL_DEVICE Span span(top_items::Keys keys) const {
    const Span of_keys = level.logits_of({number_of_key(keys.last), number_of_key(keys.first)});
    return {greater(of_keys.least, level.sieve), of_keys.most};
  }
  MIXPL_DEVICE uint64_t item(int64_t pair, float logit) const {
    const float score = LevelsView::deciding(level, image, pair, logit);
    return score != score ? kNoItem : ordered_item(descending_key(score), pair);
  }
};

// Items are (anchor, class) pairs.
struct PairsView : LevelsView {
  MIXPL_DEVICE int64_t length(int segment) const {
    const DenseScores& level = scores[segment % levels];
    return level.anchors * level.classes;
  }
  MIXPL_DEVICE PairPacks packs(int segment) const {
    return {scores[segment % levels], segment / levels};
  }
};

// Items are anchors, ranked by their best class.
struct AnchorsView : LevelsView {
  MIXPL_DEVICE int64_t length(int segment) const { return scores[segment % levels].anchors; }
  MIXPL_DEVICE uint64_t item(int segment, int64_t anchor) const {
    const DenseScores& level = scores[segment % levels];
    float best = NAN;
    for (int64_t c = 0; c < level.classes; ++c) {
      const float score = deciding(level, segment / levels, anchor * level.classes + c);
      if (score == score && !(score <= best)) best = score;
    }
    return best != best ? kNoItem : ordered_item(descending_key(best), anchor);
  }
};

// Decodes what was selected: one thread a pair, or a class of an anchor.
struct EmitView {
  LevelsView view;
  BoxDecoderView boxes[kMostLevels];
  SelectionView selected;
  int64_t each;  // classes of a selected anchor to look at, 1 of a selected pair
  const ImageSize* sizes;
  float min_size;
  CandidatesView out;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const int64_t slot = i / each, segment = slot / selected.most;
    if (slot % selected.most >= selected.counts[segment]) return;
    const int64_t image = segment / view.levels;
    const int l = static_cast<int>(segment % view.levels);
    const DenseScores& level = view.scores[l];
    const int64_t pair = index_of(selected.items[slot]) * each + i % each;
    const float score = LevelsView::deciding(level, image, pair);
    if (score != score) return;  // another class of a selected anchor
    const Box box = clip_box(boxes[l](image, pair / level.classes), sizes[image]);
    if (min_size >= 0 && !(box.x2 - box.x1 > min_size && box.y2 - box.y1 > min_size)) return;
    const float carried = level.carried(score, image, pair);
    out.add(image, {uint64_t{descending_key(carried)} << 32 | static_cast<uint64_t>(l),
                    ordered_item(descending_key(score), pair), box, carried,
                    static_cast<int32_t>(pair % level.classes)});
  }
};

static_assert(sizeof(EmitView) <= 4000);  // travels as an argument

template <typename View>
Selection select_pairs(const LevelsView& levels, int64_t images, int64_t longest, int64_t most,
                       Device device) {
  return top_items_of(View{levels}, images * levels.levels, longest, most, device);
}

}  // namespace

PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& o) {
  const int64_t images = sizes.size(0);
  if (images == 0) return {};
  const Device device = levels[0].logits.device();
  LevelsView view{};
  view.levels = static_cast<int>(levels.size());
  view.nms_pre = o.nms_pre;
  int64_t anchors = 0;  // of the largest level
  for (size_t l = 0; l < levels.size(); ++l) {
    view.scores[l] = scores_of(levels[l], classes, o);
    anchors = std::max(anchors, levels[l].anchors());
  }
  // Of each level at most so many items are chosen, each of which becomes `each` candidates.
  const int64_t items = o.per_anchor ? anchors : anchors * classes;
  const int64_t most = std::min(o.nms_pre, items), each = o.per_anchor ? classes : 1;
  const Selection selected = o.per_anchor
                                 ? select_pairs<AnchorsView>(view, images, items, most, device)
                                 : select_pairs<PairsView>(view, images, items, most, device);

  const Candidates candidates(images, view.levels * most * each, device);
  EmitView emit{
      view, {}, SelectionView(selected), each, sizes_in(sizes), o.min_size, candidates.view()};
  for (size_t l = 0; l < levels.size(); ++l) emit.boxes[l] = levels[l].boxes.view();
  for_each(images * view.levels * most * each, emit);

  const Ranked ranked = rank_candidates(candidates);
  const Kept kept = suppress(ranked, classes, o.nms_iou, o.max_per_image);
  return download(ranked, kept, o.vote ? vote_boxes(ranked, kept) : Tensor());
}

}  // namespace mixpl::cuda
