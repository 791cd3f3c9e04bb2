#include <algorithm>

#include "core/parallel.h"
#include "detect/dense_post_process.h"
#include "detect/nms.h"
#include "detect/score_voting.h"

namespace mixpl::cpu {
namespace {

struct Candidate {
  float score;
  int64_t index;  // anchor * classes + class, within an image and a level
};

// Higher score first, ties by index: the same choice on every run.
bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

void keep_best(std::vector<Candidate>& candidates, int64_t most) {
  if (static_cast<int64_t>(candidates.size()) <= most) return;
  std::nth_element(candidates.begin(), candidates.begin() + most, candidates.end(), better);
  candidates.resize(most);
}

// The candidates, in order of index, of the `most` anchors whose best class has the highest score.
void keep_best_anchors(std::vector<Candidate>& candidates, int64_t most, int64_t classes) {
  std::vector<Candidate> anchors;  // index: of the anchor
  for (const Candidate& c : candidates) {
    const int64_t anchor = c.index / classes;
    if (anchors.empty() || anchors.back().index != anchor)
      anchors.push_back({c.score, anchor});
    else
      anchors.back().score = std::max(anchors.back().score, c.score);
  }
  if (static_cast<int64_t>(anchors.size()) <= most) return;
  keep_best(anchors, most);
  std::sort(anchors.begin(), anchors.end(),
            [](const Candidate& a, const Candidate& b) { return a.index < b.index; });
  auto next = anchors.begin();
  std::erase_if(candidates, [&](const Candidate& c) {
    while (next != anchors.end() && next->index < c.index / classes) ++next;
    return next == anchors.end() || next->index != c.index / classes;
  });
}

// Takes pairs in order of index; of more than `most` the best.
class Shortlist {
 public:
  /// @param per_anchor `most` counts anchors: no pair is known to be out before all were seen
  Shortlist(int64_t most, bool per_anchor, float score_thr)
      : most_(per_anchor ? INT64_MAX : most), floor_(score_thr) {}
  /// Returns whether the floor rose.
  bool offer(Candidate c) {
    if (!(c.score > floor_)) return false;
    found_.push_back(c);
    if (static_cast<int64_t>(found_.size()) / 2 < most_) return false;
    // Whoever comes later has a higher index: no better than the worst of `most` is out.
    keep_best(found_, most_);
    floor_ = std::max_element(found_.begin(), found_.end(), better)->score;
    return true;
  }
  /// What does not score higher is out.
  float floor() const { return floor_; }
  std::vector<Candidate> take() { return std::move(found_); }

 private:
  int64_t most_;
  float floor_;
  std::vector<Candidate> found_;
};

// f(i) for x[i] > sieve in [begin, end), without a branch for each of the many that are not; f may
// raise the sieve.
template <typename T, typename F>
void sift(const T* x, int64_t begin, int64_t end, const float& sieve, F&& f) {
  constexpr int64_t kBlock = 64;
  for (; begin < end; begin += kBlock) {
    const int64_t stop = std::min(end, begin + kBlock);
    const float bound = sieve;
    int any = 0;
    for (int64_t i = begin; i < stop; ++i) any |= static_cast<float>(x[i]) > bound;
    if (!any) continue;
    for (int64_t i = begin; i < stop; ++i)
      if (static_cast<float>(x[i]) > sieve) f(i);
  }
}

// Pairs [begin, end) of an image whose score, as far as it decides who stays, is high enough.
std::vector<Candidate> above_threshold(const DenseScores& scores, int64_t image, int64_t begin,
                                       int64_t end, const DensePostProcessOptions& o) {
  Shortlist list(o.nms_pre, o.per_anchor, scores.score_thr);
  float sieve = scores.sieve;
  const auto sift_typed = [&](const auto* logits) {
    const auto* x = logits + image * scores.anchors * scores.classes;
    sift(x, begin, end, sieve, [&](int64_t i) {
      const float score = scores.deciding(static_cast<float>(x[i]), image, i);
      if (list.offer({score, i})) sieve = scores.logits_of({list.floor(), INFINITY}).least;
    });
  };
  if (scores.logits.bf16)
    sift_typed(static_cast<const bfloat16*>(scores.logits.data));
  else
    sift_typed(static_cast<const float*>(scores.logits.data));
  return list.take();
}

// A piece of one level of one image.
struct Piece {
  int64_t image;
  size_t level;
  int64_t begin, end;
};

}  // namespace

PendingDetections dense_post_process(const std::vector<DenseLevel>& levels, const Tensor& sizes,
                                     int64_t classes, const DensePostProcessOptions& o) {
  const int64_t images = sizes.size(0);
  std::vector<DenseScores> scores_of_level;
  std::vector<BoxDecoderView> boxes_of_level;
  for (const DenseLevel& level : levels) {
    scores_of_level.push_back(scores_of(level, classes, o));
    boxes_of_level.push_back(level.boxes.view());
  }

  // Whole anchors.
  const int64_t piece_size = std::max<int64_t>((1 << 18) / classes, 1) * classes;
  const auto keep = [&](std::vector<Candidate>& candidates) {
    if (o.per_anchor)
      keep_best_anchors(candidates, o.nms_pre, classes);
    else
      keep_best(candidates, o.nms_pre);
  };
  std::vector<Piece> pieces;
  for (int64_t n = 0; n < images; ++n)
    for (size_t l = 0; l < levels.size(); ++l) {
      const int64_t count = levels[l].anchors() * classes;
      for (int64_t begin = 0; begin < count; begin += piece_size)
        pieces.push_back({n, l, begin, std::min(count, begin + piece_size)});
    }
  std::vector<std::vector<Candidate>> found(pieces.size());
  parallel_for(static_cast<int64_t>(pieces.size()), int64_t{1}, [&](int64_t p) {
    const Piece& piece = pieces[p];
    found[p] =
        above_threshold(scores_of_level[piece.level], piece.image, piece.begin, piece.end, o);
    keep(found[p]);
  });

  std::vector<Detections> out(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int32_t> labels;
    size_t p = std::find_if(pieces.begin(), pieces.end(),
                            [&](const Piece& piece) { return piece.image == n; }) -
               pieces.begin();
    for (size_t l = 0; l < levels.size(); ++l) {
      const DenseScores& level = scores_of_level[l];
      std::vector<Candidate> candidates;
      for (; p < pieces.size() && pieces[p].image == n && pieces[p].level == l; ++p)
        candidates.insert(candidates.end(), found[p].begin(), found[p].end());
      keep(candidates);
      std::sort(candidates.begin(), candidates.end(), better);
      for (const Candidate& c : candidates) {
        const Box box = clip_box(boxes_of_level[l](n, c.index / classes), sizes_in(sizes)[n]);
        if (o.min_size >= 0 && !(box.x2 - box.x1 > o.min_size && box.y2 - box.y1 > o.min_size))
          continue;
        boxes.push_back(box);
        scores.push_back(level.carried(c.score, n, c.index));
        labels.push_back(static_cast<int32_t>(c.index % classes));
      }
    }
    Detections& mine = out[n];
    const std::vector<int32_t> kept = nms(boxes, scores, labels, o.nms_iou, o.max_per_image);
    const std::vector<Box> voted =
        o.vote ? vote_boxes(boxes, scores, labels, kept) : std::vector<Box>{};
    for (size_t k = 0; k < kept.size(); ++k) {
      const Box& box = o.vote ? voted[k] : boxes[kept[k]];
      mine.boxes.insert(mine.boxes.end(), {box.x1, box.y1, box.x2, box.y2});
      mine.scores.push_back(scores[kept[k]]);
      mine.labels.push_back(labels[kept[k]]);
    }
  });
  return out;
}

}  // namespace mixpl::cpu
