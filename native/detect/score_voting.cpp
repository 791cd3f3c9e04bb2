#include "detect/score_voting.h"

#include "core/parallel.h"

namespace mixpl {

std::vector<Box> vote_boxes(const std::vector<Box>& boxes, const std::vector<float>& scores,
                            const std::vector<int32_t>& labels, const std::vector<int32_t>& kept) {
  std::vector<Box> out(kept.size());
  parallel_for(static_cast<int64_t>(kept.size()), int64_t{8}, [&](int64_t k) {
    const Box own = boxes[kept[k]];
    Vote vote;
    for (size_t i = 0; i < boxes.size(); ++i)
      if (labels[i] == labels[kept[k]]) vote.add(own, boxes[i], scores[i]);
    out[k] = vote.box(own);
  });
  return out;
}

}  // namespace mixpl
