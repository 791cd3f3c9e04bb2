#include "detect/dense_post_process.h"

#include <algorithm>
#include <cmath>

#include "detect/nms.h"

namespace mixpl {
namespace {

struct Candidate {
  float score;
  int32_t index;  // anchor * classes + class
};

// Higher score first, ties by index: the same choice on every run.
bool better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

}  // namespace

Detections dense_post_process(const std::vector<Tensor>& logits, const std::vector<Tensor>& deltas,
                              const std::vector<Tensor>& anchors, int64_t image, int64_t classes,
                              float height, float width, const DeltaCoder& coder,
                              const DensePostProcessOptions& o) {
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<int32_t> labels;
  // sigmoid(x) > thr is x > logit(thr): a first sieve without exponentials.
  const float sieve = o.score_thr <= 0   ? -INFINITY
                      : o.score_thr >= 1 ? INFINITY
                                         : std::log(o.score_thr / (1 - o.score_thr)) - 1e-3f;
  for (size_t level = 0; level < logits.size(); ++level) {
    const int64_t per_image = logits[level].numel() / std::max<int64_t>(logits[level].size(0), 1);
    std::vector<Candidate> candidates;
    dispatch_floating(logits[level].dtype(), [&](auto tag) {
      const auto* x = logits[level].data<decltype(tag)>() + image * per_image;
      for (int64_t i = 0; i < per_image; ++i) {
        const float v = float(x[i]);
        if (!(v > sieve)) continue;
        const float score = 1.0f / (1.0f + std::exp(-v));
        if (score > o.score_thr) candidates.push_back({score, static_cast<int32_t>(i)});
      }
    });
    if (static_cast<int64_t>(candidates.size()) > o.nms_pre) {
      std::nth_element(candidates.begin(), candidates.begin() + o.nms_pre, candidates.end(),
                       better);
      candidates.resize(o.nms_pre);
    }
    std::sort(candidates.begin(), candidates.end(), better);
    const Box* anchor = reinterpret_cast<const Box*>(anchors[level].data<float>());
    dispatch_floating(deltas[level].dtype(), [&](auto tag) {
      const auto* d = deltas[level].data<decltype(tag)>() + image * 4 * anchors[level].size(0);
      for (const Candidate& c : candidates) {
        const int64_t at = c.index / classes;
        const Box box =
            clip_box(coder.decode(anchor[at], {float(d[4 * at]), float(d[4 * at + 1]),
                                               float(d[4 * at + 2]), float(d[4 * at + 3])}),
                     height, width);
        if (!(box.x2 > box.x1 && box.y2 > box.y1)) continue;
        boxes.push_back(box);
        scores.push_back(c.score);
        labels.push_back(static_cast<int32_t>(c.index % classes));
      }
    });
  }
  Detections out;
  for (int32_t i : nms(boxes, scores, labels, o.nms_iou, o.max_per_image)) {
    out.boxes.insert(out.boxes.end(), {boxes[i].x1, boxes[i].y1, boxes[i].x2, boxes[i].y2});
    out.scores.push_back(scores[i]);
    out.labels.push_back(labels[i]);
  }
  return out;
}

}  // namespace mixpl
