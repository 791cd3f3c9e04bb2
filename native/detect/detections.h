// What detectors find.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

/// Detections of one image, best first; boxes in network-input pixels.
struct Detections {
  std::vector<float> boxes;  // [4 n] xyxy
  std::vector<float> scores;
  std::vector<int32_t> labels;
};

/// Detections of a batch that a GPU may still be at work on: what is given to it afterwards is not
/// waited for.
class PendingDetections {
 public:
  PendingDetections() = default;
  PendingDetections(std::vector<Detections> found) : found_(std::move(found)) {}
  /// @param collect waits for them
  explicit PendingDetections(std::function<std::vector<Detections>()> collect)
      : collect_(std::move(collect)) {}

  std::vector<Detections> get() { return collect_ ? collect_() : found_; }

 private:
  std::vector<Detections> found_;
  std::function<std::vector<Detections>()> collect_;
};

/// Of an image in the network input, without its padding. Functions take those of a batch as
/// f32 [N, 2], on the device of what they work on.
struct ImageSize {
  float height = 0, width = 0;
};
inline const ImageSize* sizes_in(const Tensor& sizes) {
  return reinterpret_cast<const ImageSize*>(sizes.data<float>());
}
MIXPL_HD Box clip_box(Box b, ImageSize size) { return clip_box(b, size.height, size.width); }

}  // namespace mixpl
