// What detectors find.
#pragma once

#include <cstdint>
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
