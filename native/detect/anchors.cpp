#include "detect/anchors.h"

#include <cmath>

#include "core/check.h"
#include "detect/box_math.h"
#include "ops/registry.h"

namespace mixpl {

void AnchorOptions::validate() const {
  const auto positive = [](const char* name, const std::vector<double>& values) {
    if (values.empty()) throw ConfigError(str("anchors.", name, " must not be empty"));
    for (double v : values)
      if (!(v > 0) || !std::isfinite(v))
        throw ConfigError(str("anchors.", name, " must be numbers > 0, got ", v));
  };
  positive("strides", strides);
  positive("ratios", ratios);
  positive("scales", scales);
}

Tensor level_anchors(const AnchorOptions& o, int level, int64_t height, int64_t width) {
  std::vector<Box> base;
  const double stride = o.strides.at(level);
  for (double ratio : o.ratios)
    for (double scale : o.scales) {
      const double w = stride * scale / std::sqrt(ratio), h = stride * scale * std::sqrt(ratio);
      base.push_back({float(-0.5 * w), float(-0.5 * h), float(0.5 * w), float(0.5 * h)});
    }
  const int64_t per = static_cast<int64_t>(base.size());
  Tensor out = Tensor::empty({height * width * per, 4}, DType::f32);
  Box* box = reinterpret_cast<Box*>(out.data<float>());
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (const Box& b : base) {
        const float cx = float(x * stride), cy = float(y * stride);
        *box++ = {b.x1 + cx, b.y1 + cy, b.x2 + cx, b.y2 + cy};
      }
  return out;
}

namespace {
// No inputs; { stride, ratios, scales, height, width } of one level.
const bool registered =
    register_op("levelAnchors", [](const std::vector<Tensor>&, const Options& o) {
      AnchorOptions options;
      options.strides = {o.number("stride", 8)};
      options.ratios = o.numbers("ratios", options.ratios);
      options.scales = o.numbers("scales", options.scales);
      options.validate();
      const int64_t height = o.integer("height", 1), width = o.integer("width", 1);
      const Check check("levelAnchors");
      check.in_range("height", static_cast<double>(height), 0, 1 << 16);
      check.in_range("width", static_cast<double>(width), 0, 1 << 16);
      return std::vector<Tensor>{level_anchors(options, 0, height, width)};
    });
}  // namespace

}  // namespace mixpl
