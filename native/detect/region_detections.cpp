#include "detect/region_detections.h"

#include "core/check.h"

namespace mixpl {

RegionDetectionOptions RegionDetectionOptions::read(const Options& options,
                                                    const RegionDetectionOptions& defaults) {
  RegionDetectionOptions out = defaults;
  out.score_thr = static_cast<float>(options.number("scoreThr", out.score_thr));
  out.nms_iou = static_cast<float>(options.number("nmsIou", out.nms_iou));
  out.max_per_image = options.integer("maxPerImage", out.max_per_image);
  if (!(out.score_thr >= 0 && out.score_thr <= 1))
    throw ConfigError(str("test.scoreThr must be in [0, 1], got ", out.score_thr));
  if (!(out.nms_iou >= 0 && out.nms_iou <= 1))
    throw ConfigError(str("test.nmsIou must be in [0, 1], got ", out.nms_iou));
  if (out.max_per_image < 1)
    throw ConfigError(str("test.maxPerImage must be >= 1, got ", out.max_per_image));
  return out;
}

StageLogits::StageLogits(const std::vector<Tensor>& logits)
    : stages(static_cast<int>(logits.size())) {
  if (logits.empty() || logits.size() > kMost)
    throw ShapeError(str("detectRegions: needs 1 to ", kMost, " stages, got ", logits.size()));
  for (int s = 0; s < stages; ++s) of_stage[s] = Numbers::of(logits[s]);
}

PendingDetections detect_regions(const Regions& regions, const std::vector<Tensor>& logits,
                                 const RegionDecoder& decoder, const Tensor& sizes,
                                 const RegionDetectionOptions& options) {
  if (is_traced()) {
    std::vector<Tensor> inputs{regions.boxes, decoder.deltas};
    inputs.insert(inputs.end(), logits.begin(), logits.end());
    Trace::Numbers numbers{{"scoreThr", options.score_thr},
                           {"nmsIou", options.nms_iou},
                           {"maxPerImage", static_cast<double>(options.max_per_image)},
                           {"minSize", options.min_size}};
    add_numbers(numbers, decoder.coder, "");
    note("regionDetections", inputs, {}, std::move(numbers));
  }
  return MIXPL_DISPATCH(regions.device(), detect_regions, regions, logits, decoder, sizes, options);
}

}  // namespace mixpl
