#pragma once

#include <vector>

#include "core/tensor.h"

namespace mixpl {

struct RoiAlignOptions {
  int size = 7;            // bins per side
  int sampling_ratio = 0;  // samples per bin and side; 0: one a feature pixel, ceil(bin side)
  bool aligned = true;     // half-pixel shift; false: none, and boxes of one pixel at least
};

/// Mean of bilinear samples in every bin of a region, over the levels of a pyramid in one call.
/// Samples more than a pixel off the map count as 0, up to a pixel off as the edge.
///
/// @param levels f32|bf16 [N, H_l, W_l, C], at most 16, all of one dtype
/// @param scales per level, pixels of the map per pixel of the boxes, e.g. 1 / 8
/// @param boxes  f32 [R, 4] xyxy; places i32 [R, 2]: image 0 … N-1, level 0 … L-1 of each box.
///               On a GPU, boxes that are not finite and places out of range give 0, no error
/// @return       [R, size, size, C] in the dtype of the levels
/// @grad         levels, in their dtype, summed in f32 in the order of the boxes: the same bits on
///               every run and for any number of threads
/// @throws       ShapeError, DTypeError, RangeError
/// @source       He et al. 2017, arXiv:1703.06870; torchvision.ops.roi_align, mmcv RoIAlign
Tensor roi_align(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                 const Tensor& boxes, const Tensor& places, const RoiAlignOptions& options = {});

namespace cpu {
void roi_align_forward(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                       const Tensor& boxes, const Tensor& places, const RoiAlignOptions& options,
                       Tensor& out);
/// dlevels: undefined where nobody asked.
void roi_align_backward(const Tensor& dout, const std::vector<float>& scales, const Tensor& boxes,
                        const Tensor& places, const RoiAlignOptions& options,
                        std::vector<Tensor>& dlevels);
}  // namespace cpu

namespace cuda {
void roi_align_forward(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                       const Tensor& boxes, const Tensor& places, const RoiAlignOptions& options,
                       Tensor& out);
void roi_align_backward(const Tensor& dout, const std::vector<float>& scales, const Tensor& boxes,
                        const Tensor& places, const RoiAlignOptions& options,
                        std::vector<Tensor>& dlevels);
}  // namespace cuda

}  // namespace mixpl
