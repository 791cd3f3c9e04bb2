#include "detect/score_voting.h"

#include <cmath>

#include "core/parallel.h"

namespace mixpl {

std::vector<Box> vote_boxes(const std::vector<Box>& boxes, const std::vector<float>& scores,
                            const std::vector<int32_t>& labels, const std::vector<int32_t>& kept) {
  constexpr float kLeastIou = 0.01f;
  constexpr double kSpread = 0.025;
  std::vector<Box> out(kept.size());
  parallel_for(static_cast<int64_t>(kept.size()), int64_t{8}, [&](int64_t k) {
    const Box& own = boxes[kept[k]];
    double weight = 0, x1 = 0, y1 = 0, x2 = 0, y2 = 0;
    for (size_t i = 0; i < boxes.size(); ++i) {
      if (labels[i] != labels[kept[k]]) continue;
      const float iou = box_iou(own, boxes[i]);
      if (!(iou > kLeastIou)) continue;
      const double w = scores[i] * std::exp(-(1.0 - iou) * (1.0 - iou) / kSpread);
      weight += w;
      x1 += w * boxes[i].x1;
      y1 += w * boxes[i].y1;
      x2 += w * boxes[i].x2;
      y2 += w * boxes[i].y2;
    }
    out[k] = weight > 0 ? Box{static_cast<float>(x1 / weight), static_cast<float>(y1 / weight),
                              static_cast<float>(x2 / weight), static_cast<float>(y2 / weight)}
                        : own;
  });
  return out;
}

}  // namespace mixpl
