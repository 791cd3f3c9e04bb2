#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "detect/nms.h"
#include "detect/proposals.h"
#include "detect/region_list.h"

namespace mixpl::cpu {
namespace {

struct Candidate {
  float logit;
  int32_t anchor;
  bool operator<(const Candidate& other) const {  // best first
    return logit != other.logit ? logit > other.logit : anchor < other.anchor;
  }
};

// The best anchors of a level, best first.
std::vector<Candidate> best_of(const Numbers& logits, int64_t first, int64_t anchors,
                               int64_t most) {
  std::vector<Candidate> best;
  for (int64_t i = 0; i < anchors; ++i) {
    const float logit = logits[first + i];
    if (!std::isnan(logit)) best.push_back({logit, static_cast<int32_t>(i)});
  }
  if (static_cast<int64_t>(best.size()) > most) {
    std::nth_element(best.begin(), best.begin() + most, best.end());
    best.resize(most);
  }
  std::sort(best.begin(), best.end());
  return best;
}

}  // namespace

Regions propose_regions(const std::vector<ProposalLevel>& levels, const Tensor& sizes,
                        const ProposalOptions& o) {
  const int64_t images = sizes.size(0);
  std::vector<std::vector<Box>> proposals(images);
  parallel_for(images, int64_t{1}, [&](int64_t n) {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int32_t> level_of;
    for (size_t l = 0; l < levels.size(); ++l) {
      const BoxDecoderView decode = levels[l].boxes.view();
      const int64_t anchors = levels[l].anchors();
      for (const Candidate& c :
           best_of(Numbers::of(levels[l].logits), n * anchors, anchors, o.nms_pre)) {
        const Box box = clip_box(decode(n, c.anchor), sizes_in(sizes)[n]);
        const float score = 1.0f / (1.0f + std::exp(-c.logit));
        if (!large_enough(box, o) || !(score >= o.score_thr)) continue;
        boxes.push_back(box);
        scores.push_back(score);
        level_of.push_back(static_cast<int32_t>(l));
      }
    }
    for (int32_t i : nms(boxes, scores, level_of, o.nms_iou, o.max_per_image))
      proposals[n].push_back(boxes[i]);
  });
  RegionList out(images);
  for (int64_t n = 0; n < images; ++n)
    for (const Box& box : proposals[n]) out.add(static_cast<int32_t>(n), box);
  return out.regions();
}

}  // namespace mixpl::cpu
