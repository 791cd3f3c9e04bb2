// From a box head's outputs to detections.
#pragma once

#include "core/options.h"
#include "detect/detections.h"
#include "detect/regions.h"

namespace mixpl {

struct RegionDetectionOptions {
  float score_thr = 0.05f;
  float nms_iou = 0.5f;
  int64_t max_per_image = 100;
  float min_size = -1;  // >= 0: sides must reach it (torchvision)

  /// { scoreThr, nmsIou, maxPerImage } of "test". @throws ConfigError
  static RegionDetectionOptions read(const Options& options,
                                     const RegionDetectionOptions& defaults);
};

/// Softmax scores above score_thr, boxes of every class, class-wise NMS, the max_per_image best.
/// Equal scores are taken by rising region, class. A NaN is no detection.
///
/// @param logits per stage f32|bf16 [R, C + 1], background last; their mean counts
/// @param sizes  f32 [N, 2], see ImageSize; boxes are clipped to them
/// @source       mmdetection StandardRoIHead, CascadeRoIHead; torchvision RoIHeads
PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& options);

/// Logits of a region as the mean over the stages, in f32.
struct StageLogits {
  static constexpr int kMost = 8;
  Numbers of_stage[kMost];
  int stages;

  /// @throws ShapeError for more than kMost
  explicit StageLogits(const std::vector<Tensor>& logits);
  MIXPL_HD float operator[](int64_t i) const {
    if (stages == 1) return of_stage[0][i];
    float sum = of_stage[0][i];
    for (int s = 1; s < stages; ++s) sum += of_stage[s][i];
    return sum / static_cast<float>(stages);
  }
};

/// Whether a decoded box may be a detection.
MIXPL_HD bool detectable(Box b, float min_size) {
  const float sum = b.x1 + b.y1 + b.x2 + b.y2;
  if (sum != sum) return false;
  return !(min_size >= 0) || (b.x2 - b.x1 >= min_size && b.y2 - b.y1 >= min_size);
}

namespace cpu {
PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& options);
}  // namespace cpu
namespace cuda {
/// Ends with the start of the one copy that brings the detections to the host.
PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& options);
}  // namespace cuda

}  // namespace mixpl
