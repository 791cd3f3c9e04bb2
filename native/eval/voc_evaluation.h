// Pascal VOC mean average precision, as mmdetection's eval_map computes it.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/evaluation_set.h"

namespace mixpl::eval {

struct VocOptions {
  enum class Interpolation { eleven_point, area };  // VOC2007, VOC2010 and later
  std::vector<double> iou_thresholds{0.5};          // [T]
  Interpolation interpolation = Interpolation::eleven_point;
  bool legacy_coordinates = true;  // width = x2 - x1 + 1: edges are inclusive pixel indices
};

struct VocTables {
  std::vector<double> average_precision;   // [T, K]; -1 for a class without counting ground truth
  std::vector<double> recall;              // [T, K] final recall; -1 likewise
  std::vector<int32_t> num_ground_truths;  // [K] not difficult
  std::vector<int32_t> num_detections;     // [K]
};

/// A detection looks only at its best-overlapping ground truth, difficult ones included (the first
/// of equals): below the threshold it is false; on a difficult one it does not count; the first
/// hit is true, later hits are false.
///
/// @param ground_truths xyxy; `ignore` marks difficult ones; `areas` and `ids` are not used
/// @param detections    xyxy
/// @throws              ShapeError, RangeError (also for values that are not finite)
/// @source              mmdetection mean_ap.py: tpfp_default, eval_map, average_precision;
///                      deviation: equal scores keep their order (there the sort is unstable)
VocTables evaluate_voc(int64_t num_images, int64_t num_classes, const GroundTruths& ground_truths,
                       const DetectedBoxes& detections, const VocOptions& options);

}  // namespace mixpl::eval
