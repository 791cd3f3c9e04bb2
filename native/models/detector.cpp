#include "models/detector.h"

#include <cmath>
#include <functional>
#include <utility>

#include "core/context.h"
#include "models/detectors/detectors.h"

namespace mixpl {

Numerics read_numerics(const Options& options) {
  const std::string text = options.text("numerics", "mmdetection");
  if (text == "mmdetection") return Numerics::mmdetection;
  if (text == "torchvision") return Numerics::torchvision;
  throw ConfigError(str("model.numerics must be 'mmdetection' or 'torchvision', got '", text, "'"));
}

void read_mmdetection_numerics(const Options& options) {
  if (read_numerics(options) != Numerics::mmdetection)
    throw ConfigError(str("model.numerics must be 'mmdetection' (torchvision has no ",
                          options.text("type", ""), "), got 'torchvision'"));
}

int64_t read_num_classes(const Options& options) {
  const int64_t classes = options.integer("numClasses", 0);
  if (classes < 1 || classes > 1 << 16)
    throw ConfigError(str("numClasses must be in [1, 65536], got ", classes));
  return classes;
}

int64_t read_count(const Options& options, const char* section, const char* name,
                   int64_t fallback) {
  const int64_t count = options.integer(name, fallback);
  if (count < 1 || count > 1 << 20)
    throw ConfigError(str(section, name, " must be in [1, ", 1 << 20, "], got ", count));
  return count;
}

std::vector<double> read_point_strides(const Options& options, int levels) {
  const Options points = options.object("points");
  const std::vector<double> strides = points.numbers("strides", {8, 16, 32, 64, 128});
  points.finish();
  if (static_cast<int>(strides.size()) != levels)
    throw ConfigError(str("points.strides must hold one stride per output of the neck (", levels,
                          "), got ", strides.size()));
  for (double stride : strides)
    if (!(stride > 0) || !std::isfinite(stride))
      throw ConfigError(str("points.strides must be numbers > 0, got ", stride));
  return strides;
}

AnchorOptions read_square_anchors(const Options& options, int levels) {
  const Options a = options.object("anchors");
  AnchorOptions anchors;
  anchors.strides = a.numbers("strides", anchors.strides);
  anchors.ratios = {1};
  anchors.scales = {a.number("octaveBaseScale", 8)};
  a.finish();
  if (!(anchors.scales[0] > 0) || !std::isfinite(anchors.scales[0]))
    throw ConfigError(str("anchors.octaveBaseScale must be a number > 0, got ", anchors.scales[0]));
  anchors.validate();
  if (static_cast<int>(anchors.strides.size()) != levels)
    throw ConfigError(str("anchors.strides must hold one stride per output of the neck (", levels,
                          "), got ", anchors.strides.size()));
  return anchors;
}

void Detector::check_targets(const LabelledBatch& batch) const {
  const auto& [images, targets] = batch;
  if (static_cast<int64_t>(targets.size()) != images.pixels.size(0))
    throw ShapeError(str("detector.loss: targets must have one entry per image (",
                         images.pixels.size(0), "), got ", targets.size()));
  for (size_t n = 0; n < targets.size(); ++n) {
    const int32_t* label = targets[n].labels.data<int32_t>();
    const float* box = targets[n].boxes.data<float>();
    for (int64_t i = 0; i < targets[n].labels.numel(); ++i) {
      if (label[i] < 0 || label[i] >= num_classes_)
        throw RangeError(str("detector.loss: label ", i, " of image ", n, " must be in [0, ",
                             num_classes_ - 1, "], got ", label[i]));
      const float *b = box + 4 * i, w = b[2] - b[0], h = b[3] - b[1];
      if (!(w > 0 && h > 0 && std::isfinite(w) && std::isfinite(h)))
        throw RangeError(str("detector.loss: box ", i, " of image ", n,
                             " must have x1 < x2 and y1 < y2, all finite, got [", b[0], ", ", b[1],
                             ", ", b[2], ", ", b[3], "]"));
    }
  }
}

std::vector<Losses> Detector::losses(const std::vector<LabelledBatch>& batches) {
  std::vector<Tensor> pixels;
  for (const LabelledBatch& batch : batches) {
    check_targets(batch);
    pixels.push_back(batch.images.pixels);
  }
  return head_losses(pyramids(pixels), batches);
}

CellStride torchvision_stride(const Tensor& pixels, int64_t height, int64_t width) {
  return {static_cast<double>(pixels.size(1) / std::max<int64_t>(height, 1)),
          static_cast<double>(pixels.size(2) / std::max<int64_t>(width, 1))};
}

Tensor valid_anchors(const AnchorOptions& options, const std::vector<Tensor>& maps,
                     const ImageBatch& images) {
  std::vector<std::array<float, 2>> pads;
  for (const InputSize& pad : images.pad_sizes) pads.push_back({pad.height, pad.width});
  return valid_anchors(options, maps, pads);
}

Truth truth_of(const ImageBatch& images, const std::vector<Target>& targets) {
  return join_truth("detector.loss", boxes_of(targets), labels_of(targets), images.pixels.device());
}

std::vector<Tensor> boxes_of(const std::vector<Target>& targets) {
  std::vector<Tensor> boxes;
  for (const Target& target : targets) boxes.push_back(target.boxes);
  return boxes;
}

std::vector<Tensor> labels_of(const std::vector<Target>& targets) {
  std::vector<Tensor> labels;
  for (const Target& target : targets) labels.push_back(target.labels);
  return labels;
}

Tensor sizes_of(const ImageBatch& images) {
  std::vector<float> sizes;
  for (const InputSize& size : images.sizes) sizes.insert(sizes.end(), {size.height, size.width});
  return Tensor::from(sizes, {static_cast<int64_t>(images.sizes.size()), 2},
                      images.pixels.device());
}

namespace {

struct Entry {
  const char* type;
  std::unique_ptr<Detector> (*create)(const Options&, uint64_t seed);
};
// clang-format off
constexpr Entry kDetectors[] = {
    {"retinanet", create_retinanet},
    {"fcos", create_fcos},
    {"centernet", create_centernet},
    {"atss", create_atss},
    {"gfl", create_gfl},
    {"tood", create_tood},
    {"faster-rcnn", create_faster_rcnn},
    {"cascade-rcnn", create_cascade_rcnn},
    {"paa", create_paa},
    {"sparse-rcnn", create_sparse_rcnn},
    {"dab-detr", create_dab_detr},
    {"deformable-detr", create_deformable_detr},
    {"dino", create_dino},
};
// clang-format on

}  // namespace

std::unique_ptr<Detector> create_detector(const std::string& json, uint64_t seed) {
  const Options options(json, "model");
  const std::string type = options.text("type", "retinanet");
  for (const Entry& entry : kDetectors) {
    if (type != entry.type) continue;
    std::unique_ptr<Detector> detector = entry.create(options, seed);
    options.finish();
    return detector;
  }
  std::string known;
  for (const Entry& entry : kDetectors) known += str(known.empty() ? "'" : ", '", entry.type, "'");
  throw ConfigError(str("model.type must be one of ", known, ", got '", type, "'"));
}

}  // namespace mixpl
