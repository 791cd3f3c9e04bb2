#include "ops/roi_align/roi_align.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"
#include "ops/roi_align/roi_align_math.h"

namespace mixpl {
namespace {

// A GPU would have to be waited for: its kernels give such boxes zeros and no gradient instead.
void check_values(const std::vector<Tensor>& levels, const Tensor& boxes, const Tensor& places) {
  const Check check("roiAlign");
  const int32_t* place = places.data<int32_t>();
  for (int64_t r = 0; r < boxes.size(0); ++r) {
    check.in_range("places (image)", place[2 * r], 0, static_cast<double>(levels[0].size(0)) - 1);
    check.in_range("places (level)", place[2 * r + 1], 0, static_cast<double>(levels.size()) - 1);
    for (int k = 0; k < 4; ++k)
      if (!(std::fabs(boxes.data<float>()[4 * r + k]) < kFarthestEdge))
        throw RangeError(str("roiAlign: boxes must be finite and below 1e7, got ",
                             boxes.data<float>()[4 * r + k], " in box ", r));
  }
}

void check_arguments(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                     const Tensor& boxes, const Tensor& places, const RoiAlignOptions& o) {
  const Check check("roiAlign");
  if (levels.empty() || levels.size() != scales.size())
    throw ShapeError(str("roiAlign: scales must hold one number per level (", levels.size(),
                         ", at least 1), got ", scales.size()));
  check.in_range("levels (their number)", static_cast<double>(levels.size()), 1, kMostRoiLevels);
  for (const Tensor& level : levels) {
    check.floating("levels", level);
    check.rank("levels", level, 4, "N, H, W, C");
    check.dtype("levels", level, levels[0].dtype());
    check.size("levels", level, 0, levels[0].size(0), "images of the first level");
    check.size("levels", level, 3, levels[0].size(3), "channels of the first level");
    check.same_device("levels", level, levels[0]);
  }
  for (float scale : scales)
    if (!(scale > 0) || !std::isfinite(scale))
      throw RangeError(str("roiAlign: scales must be numbers > 0, got ", scale));
  check.dtype("boxes", boxes, DType::f32);
  check.rank("boxes", boxes, 2, "R, 4");
  check.size("boxes", boxes, 1, 4, "x1, y1, x2, y2");
  check.dtype("places", places, DType::i32);
  check.shape("places", places, {boxes.size(0), 2}, "image and level of each box");
  check.same_device("boxes", boxes, levels[0]);
  check.same_device("places", places, levels[0]);
  check.in_range("size", o.size, 1, 256);
  check.in_range("samplingRatio", o.sampling_ratio, 0, 256);
  if (boxes.device().is_cpu()) check_values(levels, boxes, places);
}

}  // namespace

Tensor roi_align(const std::vector<Tensor>& levels, const std::vector<float>& scales,
                 const Tensor& boxes, const Tensor& places, const RoiAlignOptions& options) {
  check_arguments(levels, scales, boxes, places, options);
  const Device device = levels[0].device();
  Tensor out = Tensor::empty({boxes.size(0), options.size, options.size, levels[0].size(3)},
                             levels[0].dtype(), device);
  MIXPL_DISPATCH(device, roi_align_forward, levels, scales, boxes, places, options, out);
  std::vector<Shape> shapes;
  std::vector<bool> wanted;
  for (const Tensor& level : levels) {
    shapes.push_back(level.shape());
    wanted.push_back(level.requires_grad());
  }
  record(out, levels, [=](const Tensor& dout) {
    std::vector<Tensor> dlevels(shapes.size());
    for (size_t l = 0; l < shapes.size(); ++l)
      if (wanted[l]) dlevels[l] = Tensor::empty(shapes[l], dout.dtype(), device);
    MIXPL_DISPATCH(device, roi_align_backward, dout, scales, boxes, places, options, dlevels);
    return Gradients(dlevels.begin(), dlevels.end());
  });
  return out;
}

namespace {
// Inputs: the levels, then boxes, places; { scales, size, samplingRatio, aligned }.
const bool registered = register_op("roiAlign", [](const std::vector<Tensor>& in,
                                                   const Options& o) {
  if (in.size() < 3)
    throw ShapeError(str("roiAlign: needs levels, boxes and places, got ", in.size(), " tensors"));
  RoiAlignOptions options;
  options.size = static_cast<int>(o.integer("size", options.size));
  options.sampling_ratio = static_cast<int>(o.integer("samplingRatio", options.sampling_ratio));
  options.aligned = o.boolean("aligned", options.aligned);
  const std::vector<double> scales = o.numbers("scales", {1});
  return std::vector<Tensor>{roi_align({in.begin(), in.end() - 2}, {scales.begin(), scales.end()},
                                       in[in.size() - 2], in[in.size() - 1], options)};
});
}  // namespace

}  // namespace mixpl
