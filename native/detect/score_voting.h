#pragma once

#include <cstdint>
#include <vector>

#include "detect/box_math.h"

namespace mixpl {

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
