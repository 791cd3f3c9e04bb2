// Regions of interest: what a first stage proposes and a second one looks at.
#pragma once

#include <algorithm>
#include <vector>

#include "core/tensor.h"
#include "detect/box_coder.h"
#include "detect/box_decoder.h"
#include "detect/detections.h"

namespace mixpl {

/// Regions of a batch, image after image, best first.
/// On the host there are as many rows as regions. On a device only the device knows how many there
/// are, so every image has as many places as it may have regions, R = N places, and its regions
/// are the first of them; an empty place has image -1 and a box of 0.
struct Regions {
  Tensor boxes;   // f32 [R, 4]
  Tensor image;   // i32 [R]
  Tensor counts;  // i32 [N]: regions of each image

  int64_t size() const { return boxes.size(0); }
  int64_t images() const { return counts.size(0); }
  int64_t places() const { return size() / std::max<int64_t>(images(), 1); }  // on a device
  Device device() const { return boxes.device(); }
  /// As batch_norm takes them; undefined where no place is empty.
  Tensor owners() const { return device().is_cuda() ? image : Tensor(); }
};

/// Which level of a pyramid a region is taken from.
struct RegionLevels {
  int count = 4;
  bool torchvision = false;

  /// By the side of a box: finest level below 112 pixels (mmdetection), 224 on P4 (torchvision).
  MIXPL_HD int of(Box box) const {
    const float side = sqrtf(box_area(box));
    const float level = torchvision ? floorf(4.0f + log2f(side / 224.0f) + 1e-6f) - 2.0f
                                    : floorf(log2f(side / 56.0f + 1e-6f));
    const float last = static_cast<float>(count) - 1;
    return static_cast<int>(level > 0 ? lesser(level, last) : 0.0f);  // NaN: the first
  }
};

/// Image and level of every region, i32 [R, 2], as roi_align takes them: the image -1 of an empty
/// place gives features of 0 there, and no gradient.
Tensor places_of(const Regions& regions, const RegionLevels& levels);

/// What a box head says of regions: deltas f32|bf16 [R, 4] or, a box for every class, [R, 4 C].
struct RegionDecoder {
  Tensor deltas;
  DeltaCoder coder;
};
struct RegionDecoderView {
  Numbers deltas;
  int64_t each;  // boxes a region
  DeltaCoder coder;

  explicit RegionDecoderView(const RegionDecoder& d)
      : deltas(Numbers::of(d.deltas)), each(d.deltas.size(1) / 4), coder(d.coder) {}
  MIXPL_HD Box operator()(int64_t region, int64_t label, Box box) const {
    const int64_t at = 4 * (each == 1 ? region : region * each + label);
    return coder.decode(box, {deltas[at], deltas[at + 1], deltas[at + 2], deltas[at + 3]});
  }
};

/// The regions as a class-agnostic head corrects them, clipped to their images; one that it made
/// NaN of stays where it was.
/// @param left_out u8 [R], undefined: none; regions with 1 are dropped
/// @param sizes    f32 [N, 2], see ImageSize
Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out = {});

namespace cpu {
void places_of(const Regions& regions, const RegionLevels& levels, Tensor& places);
Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out);
}  // namespace cpu
namespace cuda {
void places_of(const Regions& regions, const RegionLevels& levels, Tensor& places);
Regions refine_regions(const Regions& regions, const RegionDecoder& decoder, const Tensor& sizes,
                       const Tensor& left_out);
}  // namespace cuda

}  // namespace mixpl
