// Which detections of one class are true, false or ignored, per IoU threshold.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/coco_evaluation.h"

namespace mixpl::eval {

enum class Verdict : uint8_t { false_positive, true_positive, ignored };

struct ClassMatches {
  std::vector<Verdict> verdicts;  // [T, D] in the order of ClassGroup::detections
  int64_t num_ground_truths = 0;  // not ignored
};

ClassMatches match_class(const ClassGroup& group, const GroundTruths& ground_truths,
                         const DetectedBoxes& detections, const std::vector<double>& iou_thresholds,
                         AreaRange area_range);

}  // namespace mixpl::eval
