#include "detect/anchors.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/parallel.h"
#include "detect/box_math.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

constexpr size_t kMostCached = 256;

std::vector<Box> base_boxes(const AnchorOptions& o, int level) {
  std::vector<double> sides;
  if (!o.sizes.empty())
    sides = o.sizes.at(level);
  else
    for (double scale : o.scales) sides.push_back(o.strides.at(level) * scale);
  const double centre = o.center_offset * o.strides.at(level);
  std::vector<Box> boxes;
  for (double ratio : o.ratios)
    for (double side : sides) {
      const double w = side / std::sqrt(ratio), h = side * std::sqrt(ratio);
      double corners[4] = {centre - 0.5 * w, centre - 0.5 * h, centre + 0.5 * w, centre + 0.5 * h};
      if (o.round)
        for (double& c : corners) c = std::nearbyint(static_cast<float>(c));
      boxes.push_back({float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])});
    }
  return boxes;
}

}  // namespace

void AnchorOptions::validate() const {
  const auto positive = [](const char* name, const std::vector<double>& values) {
    if (values.empty()) throw ConfigError(str("anchors.", name, " must not be empty"));
    for (double v : values)
      if (!(v > 0) || !std::isfinite(v))
        throw ConfigError(str("anchors.", name, " must be numbers > 0, got ", v));
  };
  positive("strides", strides);
  positive("ratios", ratios);
  if (sizes.empty()) {
    positive("scales", scales);
  } else {
    if (sizes.size() != strides.size())
      throw ConfigError(str("anchors.sizes must hold one list per stride (", strides.size(),
                            "), got ", sizes.size()));
    for (const auto& list : sizes) {
      positive("sizes", list);
      if (list.size() != sizes[0].size())
        throw ConfigError(str("anchors.sizes must have lists of one length (", sizes[0].size(),
                              "), got ", list.size()));
    }
  }
  if (!std::isfinite(center_offset))
    throw ConfigError(str("anchors.centerOffset must be finite, got ", center_offset));
}

Tensor level_anchors(const AnchorOptions& o, int level, int64_t height, int64_t width,
                     CellStride stride) {
  const std::vector<Box> base = base_boxes(o, level);
  if (!(stride.x > 0)) stride = {o.strides.at(level), o.strides.at(level)};
  const int64_t per = static_cast<int64_t>(base.size());
  Tensor out = Tensor::empty({height * width * per, 4}, DType::f32);
  Box* boxes = reinterpret_cast<Box*>(out.data<float>());
  parallel_for(height, std::max<int64_t>(1, 4096 / std::max<int64_t>(width, 1)), [&](int64_t y) {
    Box* box = boxes + y * width * per;
    const float cy = static_cast<float>(y * stride.y);
    for (int64_t x = 0; x < width; ++x) {
      const float cx = static_cast<float>(x * stride.x);
      for (const Box& b : base) *box++ = {b.x1 + cx, b.y1 + cy, b.x2 + cx, b.y2 + cy};
    }
  });
  return out;
}

bool mark_valid_anchors(const AnchorOptions& o, int level, int64_t height, int64_t width,
                        float pad_height, float pad_width, uint8_t* valid) {
  const double stride = o.strides.at(level);
  const auto cells = [stride](float pad, int64_t most) {
    const double n = std::ceil(static_cast<double>(pad) / stride);
    return n >= static_cast<double>(most) ? most : std::max<int64_t>(0, static_cast<int64_t>(n));
  };
  const int64_t valid_height = cells(pad_height, height), valid_width = cells(pad_width, width);
  if (valid_height == height && valid_width == width) return false;
  const int64_t per = o.per_cell(), row = width * per;
  for (int64_t y = 0; y < height; ++y) {
    const int64_t kept = y < valid_height ? valid_width * per : 0;
    std::fill_n(valid + y * row, kept, uint8_t{1});
    std::fill_n(valid + y * row + kept, row - kept, uint8_t{0});
  }
  return true;
}

std::vector<uint8_t> valid_anchors(const AnchorOptions& o, const std::vector<Tensor>& maps,
                                   float pad_height, float pad_width) {
  int64_t count = 0;
  for (const Tensor& map : maps) count += map.size(1) * map.size(2) * o.per_cell();
  std::vector<uint8_t> valid(count, 1);
  bool any_invalid = false;
  uint8_t* at = valid.data();
  for (size_t l = 0; l < maps.size(); ++l) {
    const int64_t h = maps[l].size(1), w = maps[l].size(2);
    any_invalid |= mark_valid_anchors(o, static_cast<int>(l), h, w, pad_height, pad_width, at);
    at += h * w * o.per_cell();
  }
  return any_invalid ? valid : std::vector<uint8_t>{};
}

AnchorGenerator::AnchorGenerator(AnchorOptions options) : options_(std::move(options)) {
  options_.validate();
}

Tensor AnchorGenerator::level(int level, int64_t height, int64_t width, CellStride stride) {
  if (cache_.size() > kMostCached) cache_.clear();
  Tensor& slot = cache_[{level, height, width, stride.y, stride.x}];
  if (!slot.defined()) slot = level_anchors(options_, level, height, width, stride);
  return slot;
}

std::vector<Tensor> AnchorGenerator::levels(const std::vector<Tensor>& maps) {
  std::vector<Tensor> out;
  for (size_t l = 0; l < maps.size(); ++l)
    out.push_back(level(static_cast<int>(l), maps[l].size(1), maps[l].size(2)));
  return out;
}

namespace {

struct Grid {
  AnchorOptions options;
  int64_t height, width;
};

// { stride, ratios, scales | sizes, centerOffset, round, height, width } of one level.
Grid read_grid(const char* op, const Options& o) {
  Grid grid;
  AnchorOptions& options = grid.options;
  options.strides = {o.number("stride", 8)};
  options.ratios = o.numbers("ratios", options.ratios);
  options.scales = o.numbers("scales", options.scales);
  if (o.has("sizes")) options.sizes = {o.numbers("sizes", {})};
  options.center_offset = o.number("centerOffset", 0);
  options.round = o.boolean("round", false);
  options.validate();
  grid.height = o.integer("height", 1);
  grid.width = o.integer("width", 1);
  const Check check(op);
  check.in_range("height", static_cast<double>(grid.height), 0, 1 << 16);
  check.in_range("width", static_cast<double>(grid.width), 0, 1 << 16);
  check.in_range("height * width * anchors per cell",
                 static_cast<double>(grid.height * grid.width * options.per_cell()), 0, 1 << 28);
  return grid;
}

// levelAnchors: no inputs. validAnchors: the same and { padHeight, padWidth } -> u8 [H W A].
const bool registered =
    register_op("levelAnchors",
                [](const std::vector<Tensor>&, const Options& o) {
                  const Grid g = read_grid("levelAnchors", o);
                  return std::vector<Tensor>{level_anchors(g.options, 0, g.height, g.width)};
                }) &&
    register_op("validAnchors", [](const std::vector<Tensor>&, const Options& o) {
      const Grid g = read_grid("validAnchors", o);
      Tensor valid = Tensor::full({g.height * g.width * g.options.per_cell()}, 1, DType::u8);
      mark_valid_anchors(g.options, 0, g.height, g.width,
                         static_cast<float>(o.number("padHeight", 1e9)),
                         static_cast<float>(o.number("padWidth", 1e9)), valid.data<uint8_t>());
      return std::vector<Tensor>{valid};
    });

}  // namespace

}  // namespace mixpl
