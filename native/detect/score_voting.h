#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "detect/box_math.h"

namespace mixpl {

/// Sums of a vote, see vote_boxes.
struct Vote {
  double weight = 0, x1 = 0, y1 = 0, x2 = 0, y2 = 0;

  MIXPL_HD void add(Box own, Box b, float score) {
    constexpr float kLeastIou = 0.01f;
    constexpr double kSpread = 0.025;
    const float iou = box_iou(own, b);
    if (!(iou > kLeastIou)) return;
    const double w = score * exp(-(1.0 - iou) * (1.0 - iou) / kSpread);
    weight += w;
    x1 += w * b.x1;
    y1 += w * b.y1;
    x2 += w * b.x2;
    y2 += w * b.y2;
  }
  MIXPL_HD Box box(Box own) const {
    if (!(weight > 0)) return own;
    return {static_cast<float>(x1 / weight), static_cast<float>(y1 / weight),
            static_cast<float>(x2 / weight), static_cast<float>(y2 / weight)};
  }
};

/// Box voting: each kept box becomes the mean of all candidates of its class with an IoU above 0.01
/// with it, weighted by score exp(-(1 - IoU)^2 / 0.025).
///
/// @param boxes, scores, labels of all candidates, scores > 0
/// @param kept places of the kept ones; each votes for itself too
/// @return     the boxes of `kept`, in its order; one without any area (IoU 0 even with itself)
///             stays as it is
/// @source     Kim and Lee 2020, arXiv:2007.08103, section 3.4; mmdetection PAAHead.score_voting
std::vector<Box> vote_boxes(const std::vector<Box>& boxes, const std::vector<float>& scores,
                            const std::vector<int32_t>& labels, const std::vector<int32_t>& kept);

}  // namespace mixpl
