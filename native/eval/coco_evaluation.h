// COCO box evaluation, equal to pycocotools' COCOeval (iouType 'bbox') on any finite input.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/evaluation_set.h"

namespace mixpl::eval {

struct AreaRange {
  double low, high;  // square pixels, both ends inclusive
};

/// Counts: T IoU thresholds, R recall points, K classes, A area ranges, M detection limits.
struct CocoOptions {
  std::vector<double> iou_thresholds;   // [T]
  std::vector<double> recall_points;    // [R] ascending
  std::vector<AreaRange> area_ranges;   // [A]
  std::vector<int32_t> max_detections;  // [M] ascending, per image and class
};

/// Row-major tables; -1 marks a class without ground truth that counts in the area range.
struct CocoTables {
  std::vector<double> precision;  // [T, R, K, A, M]
  std::vector<double> scores;     // [T, R, K, A, M] score at which the recall point is reached
  std::vector<double> recall;     // [T, K, A, M]
  std::vector<int32_t> num_ground_truths;  // [K, A] not ignored
};

/// Matches detections with ground truth and accumulates precision and recall.
///
/// @param ground_truths xywh; `ignore` marks crowds; `areas` required; `ids` empty means all
///                      non-zero. A detection matched to a ground truth of id 0 counts as
///                      unmatched while the ground truth stays taken, as in pycocotools.
/// @param detections    xywh; their area is w * h
/// @return              the tables; same bits for any number of threads
/// @throws              ShapeError, RangeError (also for values that are not finite)
/// @source              pycocotools 2.0 cocoeval.py: computeIoU, evaluateImg, accumulate
CocoTables evaluate_coco(int64_t num_images, int64_t num_classes, const GroundTruths& ground_truths,
                         const DetectedBoxes& detections, const CocoOptions& options);

}  // namespace mixpl::eval
