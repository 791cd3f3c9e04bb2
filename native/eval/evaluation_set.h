// Ground truth and detections of a whole data set as flat arrays, grouped for evaluation.
#pragma once

#include <cstdint>
#include <vector>

namespace mixpl::eval {

/// Annotated boxes G of a data set, in file order. Boxes are [G, 4] f64, xywh or xyxy as the
/// protocol says, in original pixels.
struct GroundTruths {
  std::vector<double> boxes;
  std::vector<int32_t> images;  // [G] 0 … num_images-1; images are ordered by ascending id
  std::vector<int32_t> labels;  // [G] 0 … num_classes-1
  std::vector<double> areas;    // [G] COCO only: area of the annotation, not of its box
  std::vector<uint8_t> ignore;  // [G] COCO: crowd; VOC: difficult
  std::vector<double> ids;      // [G] COCO only: annotation ids (see coco_evaluation.h on 0)
};

/// Detected boxes D of a data set; order matters only between equal scores (earlier wins).
struct DetectedBoxes {
  std::vector<double> boxes;
  std::vector<double> scores;
  std::vector<int32_t> images;
  std::vector<int32_t> labels;
};

/// The boxes of one image within a ClassGroup: ranges into its ground_truths and detections.
struct ImageGroup {
  int64_t ground_truth_begin, ground_truth_end, detection_begin, detection_end;
};

/// The boxes of one class.
struct ClassGroup {
  std::vector<int32_t> ground_truths;  // indices, by image, then in file order
  std::vector<int32_t> detections;     // indices, by image, then by falling score (stable)
  std::vector<int32_t> ranks;          // position of a detection within its image
  std::vector<int32_t> by_score;       // positions in `detections`, by falling score (stable)
  std::vector<ImageGroup> images;      // images with any box of the class, ascending
};

/// Checks sizes, index ranges and finiteness. `op` opens the message.
/// @throws ShapeError sizes disagree; RangeError an index is outside or a value is not finite
void check_evaluation_set(const char* op, int64_t num_images, int64_t num_classes,
                          const GroundTruths& ground_truths, const DetectedBoxes& detections);

/// One group per class; only the `max_per_image` best detections of an image and class are kept.
std::vector<ClassGroup> group_by_class(int64_t num_classes, const GroundTruths& ground_truths,
                                       const DetectedBoxes& detections, int64_t max_per_image);

}  // namespace mixpl::eval
