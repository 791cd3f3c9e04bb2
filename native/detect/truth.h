// The ground truth of a batch, where the batch is: what every assigner learns from.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "detect/box_math.h"

namespace mixpl {

/// Boxes of all images in a row. Made once per call of a detector's loss, in one upload: what is in
/// the boxes stays on the device, how many there are of each image is known to the host as well,
/// which sizes buffers and grids by it without asking the device.
struct Truth {
  Tensor boxes;                 // f32 [sum G, 4] xyxy
  Tensor labels;                // i32 [sum G], 0 … C-1
  Tensor first;                 // i32 [N + 1]: image n has boxes first[n] … first[n + 1] - 1
  std::vector<int64_t> counts;  // G of each image

  int64_t images() const { return static_cast<int64_t>(counts.size()); }
  int64_t total() const { return boxes.size(0); }
  /// Of the image that has most of them.
  int64_t most() const;
  Device device() const { return boxes.device(); }
};

/// @param boxes  per image f32 [G, 4]; labels per image i32 [G]; all on the host or all on `device`
/// @param op     in whose name to complain
/// @throws       ShapeError, DTypeError, DeviceError
Truth join_truth(const char* op, const std::vector<Tensor>& boxes,
                 const std::vector<Tensor>& labels, Device device);

/// Of one image, all labels 0, on the boxes' device.
Truth join_unlabelled(const char* op, const Tensor& boxes);

/// What loops and kernels see of it.
struct TruthView {
  const Box* boxes;
  const int32_t *labels, *first;

  explicit TruthView(const Truth& truth)
      : boxes(reinterpret_cast<const Box*>(truth.boxes.data<float>())),
        labels(truth.labels.data<int32_t>()),
        first(truth.first.data<int32_t>()) {}
  MIXPL_HD int32_t begin(int64_t image) const { return first[image]; }
  MIXPL_HD int32_t count(int64_t image) const { return first[image + 1] - first[image]; }
  /// The image of a box, of all in a row.
  MIXPL_HD int64_t image_of(int32_t box, int64_t images) const {
    int64_t low = 0, high = images - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (box < first[middle + 1])
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }
};

}  // namespace mixpl
