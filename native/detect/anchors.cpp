#include "detect/anchors.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/context.h"
#include "core/launch.h"
#include "core/part.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

constexpr int64_t kMostKept = 32 << 20;  // bytes

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

namespace {

// Fills the anchors of one level, [H W A, 4].
void fill_level(const AnchorOptions& o, int level, int64_t width, CellStride stride, Tensor out) {
  const std::vector<Box> boxes = base_boxes(o, level);
  if (!(stride.x > 0)) stride = {o.strides.at(level), o.strides.at(level)};
  const int64_t per = static_cast<int64_t>(boxes.size());
  Tensor base = Tensor::empty({per, 4}, DType::f32);
  std::copy(boxes.begin(), boxes.end(), reinterpret_cast<Box*>(base.data<float>()));
  base = base.to(out.device());
  const AnchorView view{reinterpret_cast<const Box*>(base.data<float>()), per, width, stride,
                        reinterpret_cast<Box*>(out.data<float>())};
  MIXPL_DISPATCH(out.device(), make_anchors, out.size(0), view);
}

// Rows and columns of cells that begin inside the padded image.
struct Cells {
  int64_t rows, columns;
};
Cells cells_inside(double stride, int64_t height, int64_t width, float pad_height,
                   float pad_width) {
  const auto cells = [stride](float pad, int64_t most) {
    const double n = std::ceil(static_cast<double>(pad) / stride);
    return n >= static_cast<double>(most) ? most : std::max<int64_t>(0, static_cast<int64_t>(n));
  };
  return {cells(pad_height, height), cells(pad_width, width)};
}

}  // namespace

Tensor level_anchors(const AnchorOptions& o, int level, int64_t height, int64_t width,
                     CellStride stride, Device device) {
  Tensor out = Tensor::empty({height * width * o.per_cell(), 4}, DType::f32, device);
  fill_level(o, level, width, stride, out);
  return out;
}

bool mark_valid_anchors(const AnchorOptions& o, int level, int64_t height, int64_t width,
                        float pad_height, float pad_width, uint8_t* valid) {
  const Cells inside = cells_inside(o.strides.at(level), height, width, pad_height, pad_width);
  if (inside.rows == height && inside.columns == width) return false;
  const int64_t per = o.per_cell(), row = width * per;
  for (int64_t y = 0; y < height; ++y) {
    const int64_t kept = y < inside.rows ? inside.columns * per : 0;
    std::fill_n(valid + y * row, kept, uint8_t{1});
    std::fill_n(valid + y * row + kept, row - kept, uint8_t{0});
  }
  return true;
}

Tensor valid_anchors(const AnchorOptions& o, const std::vector<Tensor>& maps,
                     const std::vector<std::array<float, 2>>& pads) {
  std::vector<int64_t> sizes;
  for (const Tensor& map : maps) sizes.push_back(map.size(1) * map.size(2) * o.per_cell());
  const int64_t images = static_cast<int64_t>(pads.size());
  ValidView view{Pyramid(sizes), o.per_cell(), {}, nullptr, nullptr};
  std::vector<int32_t> inside;
  bool all = true;
  for (const auto& [pad_height, pad_width] : pads)
    for (size_t l = 0; l < maps.size(); ++l) {
      const int64_t h = maps[l].size(1), w = maps[l].size(2);
      const Cells cells = cells_inside(o.strides.at(l), h, w, pad_height, pad_width);
      all &= cells.rows == h && cells.columns == w;
      inside.push_back(static_cast<int32_t>(cells.rows));
      inside.push_back(static_cast<int32_t>(cells.columns));
      view.width[l] = w;
    }
  if (all) return {};
  const Device device = maps[0].device();
  const Tensor cells = Tensor::from(inside, {static_cast<int64_t>(inside.size())}).to(device);
  Tensor valid = Tensor::empty({images, view.pyramid.count()}, DType::u8, device);
  view.inside = cells.data<int32_t>();
  view.out = valid.data<uint8_t>();
  MIXPL_DISPATCH(device, mark_valid, valid.numel(), view);
  return valid;
}

Anchors Anchors::join(const char* op, const std::vector<Tensor>& levels) {
  std::vector<int64_t> sizes;
  for (const Tensor& level : levels) {
    as_boxes(op, "anchors", level);
    sizes.push_back(level.size(0));
  }
  Anchors out;
  out.pyramid = Pyramid(sizes);
  out.all = Tensor::empty({out.pyramid.count(), 4}, DType::f32,
                          levels.empty() ? Context::current().device : levels[0].device());
  out.split();
  for (size_t l = 0; l < levels.size(); ++l) out.levels[l].copy_from(levels[l]);
  return out;
}

void Anchors::split() {
  for (int l = 0; l < pyramid.levels; ++l)
    levels.push_back(
        part_of(all, pyramid.first[l] * int64_t{sizeof(Box)}, {pyramid.size(l), 4}, DType::f32));
}

AnchorGenerator::AnchorGenerator(AnchorOptions options) : options_(std::move(options)) {
  options_.validate();
}

Anchors AnchorGenerator::row(const std::vector<Grid>& grids, Device device) {
  std::vector<double> key{device.is_cuda() ? device.index + 1.0 : 0.0};
  std::vector<int64_t> sizes;
  for (const Grid& g : grids) {
    key.insert(key.end(),
               {double(g.level), double(g.height), double(g.width), g.stride.y, g.stride.x});
    sizes.push_back(g.height * g.width * options_.per_cell());
  }
  const auto found = kept_.find(key);
  if (found != kept_.end()) return found->second;
  Anchors made;
  made.pyramid = Pyramid(sizes);
  made.all = Tensor::empty({made.pyramid.count(), 4}, DType::f32, device);
  made.split();
  for (size_t l = 0; l < grids.size(); ++l)
    fill_level(options_, grids[l].level, grids[l].width, grids[l].stride, made.levels[l]);
  const auto bytes = static_cast<int64_t>(made.all.nbytes());
  if (kept_bytes_ + bytes > kMostKept) kept_.clear(), kept_bytes_ = 0;
  kept_bytes_ += bytes;
  return kept_[key] = made;
}

Tensor AnchorGenerator::level(int level, int64_t height, int64_t width, CellStride stride,
                              Device device) {
  return row({{level, height, width, stride}}, device).all;
}

Anchors AnchorGenerator::levels(const std::vector<Tensor>& maps,
                                const std::vector<CellStride>& strides) {
  std::vector<Grid> grids;
  for (size_t l = 0; l < maps.size(); ++l)
    grids.push_back({static_cast<int>(l), maps[l].size(1), maps[l].size(2),
                     strides.empty() ? CellStride{} : strides[l]});
  return row(grids, maps[0].device());
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

// No inputs, on the current device. levelAnchors: see read_grid. validAnchors: the same and {
// padHeight, padWidth } -> u8 [H W A].
const bool registered =
    register_op("levelAnchors",
                [](const std::vector<Tensor>&, const Options& o) {
                  const Grid g = read_grid("levelAnchors", o);
                  return std::vector<Tensor>{level_anchors(g.options, 0, g.height, g.width, {},
                                                           Context::current().device)};
                }) &&
    register_op("validAnchors", [](const std::vector<Tensor>&, const Options& o) {
      const Grid g = read_grid("validAnchors", o);
      const Device device = Context::current().device;
      const Tensor map = Tensor::empty({1, g.height, g.width, 1}, DType::u8, device);
      const Tensor valid = valid_anchors(g.options, {map},
                                         {{static_cast<float>(o.number("padHeight", 1e9)),
                                           static_cast<float>(o.number("padWidth", 1e9))}});
      const int64_t count = g.height * g.width * g.options.per_cell();
      return std::vector<Tensor>{valid.defined() ? valid.alias({count})
                                                 : Tensor::full({count}, 1, DType::u8, device)};
    });

}  // namespace

}  // namespace mixpl
