#include "detect/centernet_targets.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/math.h"
#include "core/parallel.h"
#include "detect/box_iou.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

constexpr float kLeastHeat = 1e-4f;
constexpr float kFarthest = 9.3f;  // exp(-9.3) is below kLeastHeat

// A box as one level sees it.
struct Centre {
  int64_t row, column;  // the cell that holds the box's centre; may be outside the map
  bool fits;            // its half diagonal is the level's
};

struct Boxes {
  const Box* box;
  const int32_t* label;
  int64_t count;
  std::vector<float> spread;  // max(2 delta^2 area, min_radius^2) of each

  Boxes(const Tensor& boxes, const Tensor& labels, const CenterNetTargetOptions& o)
      : box(as_boxes("centerNetTargets", "boxes", boxes)),
        label(labels.data<int32_t>()),
        count(boxes.size(0)),
        spread(count) {
    const double delta = (1 - o.min_overlap) / (1 + o.min_overlap);
    const float factor = static_cast<float>(2 * delta * delta),
                least = static_cast<float>(o.min_radius * o.min_radius);
    for (int64_t g = 0; g < count; ++g) spread[g] = greater(factor * box_area(box[g]), least);
  }
};

struct Level {
  const PointGrid& grid;
  float from, to;

  Centre centre_of(const Box& b) const {
    const float w = b.x2 - b.x1, h = b.y2 - b.y1;
    const float half = std::sqrt(w * w + h * h) / 2;
    return {cell_of((b.y1 + b.y2) / 2 / static_cast<float>(grid.stride_y)),
            cell_of((b.x1 + b.x2) / 2 / static_cast<float>(grid.stride_x)),
            half >= from && half <= to};
  }
  bool holds(int64_t row, int64_t column) const {
    return row >= 0 && row < grid.height && column >= 0 && column < grid.width;
  }

 private:
  // Towards 0, as the reference's integer conversion; within what an index holds.
  static int64_t cell_of(float v) {
    return static_cast<int64_t>(std::trunc(lesser(greater(v, -1e9f), 1e9f)));
  }
};

// The heat of one image at one level's rows [begin, end), zeroed before.
void heat_rows(const Level& level, const Boxes& boxes, const std::vector<Centre>& centres,
               int64_t classes, int64_t begin, int64_t end, float* heat) {
  const PointGrid& grid = level.grid;
  for (int64_t row = begin; row < end; ++row) {
    const float y = grid.y(row * grid.width);
    for (int64_t g = 0; g < boxes.count; ++g) {
      const Box& b = boxes.box[g];
      const float cx = (b.x1 + b.x2) / 2, cy = (b.y1 + b.y2) / 2;
      const float dy = y - cy, spread = boxes.spread[g];
      if (dy * dy / spread > kFarthest && centres[g].row != row) continue;
      for (int64_t column = 0; column < grid.width; ++column) {
        const float dx = grid.x(column) - cx;
        const bool peak = centres[g].row == row && centres[g].column == column;
        const float distance = peak ? 0.0f : (dx * dx + dy * dy) / spread;
        if (distance > kFarthest) continue;
        const float value = exp_f32(-distance);
        float& slot = heat[(row * grid.width + column) * classes + boxes.label[g]];
        if (value >= kLeastHeat && value > slot) slot = value;
      }
    }
  }
}

// The boxes that one image's points at one level answer for.
void regression_targets(const Level& level, const Boxes& boxes, const std::vector<Centre>& centres,
                        Sides* sides, float* positive) {
  const PointGrid& grid = level.grid;
  const float unit = static_cast<float>(grid.unit);
  std::vector<float> least;
  for (int64_t g = 0; g < boxes.count; ++g) {
    const Centre& centre = centres[g];
    if (!centre.fits) continue;
    const Box& b = boxes.box[g];
    const float cx = (b.x1 + b.x2) / 2, cy = (b.y1 + b.y2) / 2;
    for (int64_t row = centre.row - 1; row <= centre.row + 1; ++row)
      for (int64_t column = centre.column - 1; column <= centre.column + 1; ++column) {
        if (!level.holds(row, column)) continue;
        const int64_t cell = row * grid.width + column;
        const float x = grid.x(cell), y = grid.y(cell);
        const Sides s = encode_sides(x, y, b);
        if (!(lesser(lesser(s.left, s.right), lesser(s.top, s.bottom)) > 0)) continue;
        const bool peak = row == centre.row && column == centre.column;
        const float distance =
            peak ? 0.0f : ((x - cx) * (x - cx) + (y - cy) * (y - cy)) / boxes.spread[g];
        if (least.empty()) least.assign(grid.count(), INFINITY);
        if (!(distance < least[cell])) continue;
        least[cell] = distance;
        sides[cell] = {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit};
        positive[cell] = 1;
      }
  }
}

struct ClassPositive {
  size_t level;
  int64_t cell;
  int32_t label;
};

Sides sides_at(const Tensor& predicted, int64_t row) {
  Sides s{};
  dispatch_floating(predicted.dtype(), [&](auto tag) {
    const auto* p = predicted.data<decltype(tag)>() + 4 * row;
    s = {float(p[0]), float(p[1]), float(p[2]), float(p[3])};
  });
  return s;
}

// The classification positives of one image, by rising box, level, cell.
std::vector<ClassPositive> class_positives(const std::vector<Level>& levels,
                                           const std::vector<Tensor>& predicted, int64_t image,
                                           const Boxes& boxes, const CenterNetTargetOptions& o) {
  struct Candidate {
    size_t level;
    int64_t cell;
    float loss;
  };
  std::vector<ClassPositive> found;
  std::vector<Candidate> candidates;
  std::vector<float> losses;
  for (int64_t g = 0; g < boxes.count; ++g) {
    const Box& b = boxes.box[g];
    candidates.clear();
    for (size_t l = 0; l < levels.size(); ++l) {
      const PointGrid& grid = levels[l].grid;
      const float unit = static_cast<float>(grid.unit);
      const Centre centre = levels[l].centre_of(b);
      for (int64_t row = centre.row - 1; row <= centre.row + 1; ++row)
        for (int64_t column = centre.column - 1; column <= centre.column + 1; ++column) {
          if (!levels[l].holds(row, column)) continue;
          const int64_t cell = row * grid.width + column;
          const Sides s = encode_sides(grid.x(cell), grid.y(cell), b);
          if (!(lesser(lesser(s.left, s.right), lesser(s.top, s.bottom)) >= 0)) continue;
          const bool peak = row == centre.row && column == centre.column;
          float loss = 0;
          if (!peak || !centre.fits) {
            const Box want =
                decode_sides(0, 0, {s.left / unit, s.top / unit, s.right / unit, s.bottom / unit});
            const Box got = decode_sides(0, 0, sides_at(predicted[l], image * grid.count() + cell));
            loss = 1 - box_similarity(got, want, IouKind::giou);
            if (std::isnan(loss)) continue;
          }
          candidates.push_back({l, cell, loss});
        }
    }
    float limit = static_cast<float>(o.more_positives_loss);
    if (static_cast<int64_t>(candidates.size()) >= o.more_positives) {
      losses.clear();
      for (const Candidate& c : candidates) losses.push_back(c.loss);
      const auto nth = losses.begin() + (o.more_positives - 1);
      std::nth_element(losses.begin(), nth, losses.end());
      limit = lesser(*nth, limit);
    }
    for (const Candidate& c : candidates)
      if (c.loss < limit) found.push_back({c.level, c.cell, boxes.label[g]});
  }
  return found;
}

void check_inputs(const std::vector<PointGrid>& grids, const std::vector<Tensor>& predicted,
                  const std::vector<Tensor>& boxes, const std::vector<Tensor>& labels,
                  int64_t classes, const CenterNetTargetOptions& o) {
  const Check check("centerNetTargets");
  const int64_t images = static_cast<int64_t>(boxes.size());
  if (labels.size() != boxes.size())
    throw ShapeError(str("centerNetTargets: labels must have one entry per image (", images,
                         "), got ", labels.size()));
  if (predicted.size() != grids.size())
    throw ShapeError(str("centerNetTargets: predicted must have one tensor per level (",
                         grids.size(), "), got ", predicted.size()));
  o.validate(static_cast<int>(grids.size()));
  check.at_least("classes", static_cast<double>(classes), 1);
  for (size_t l = 0; l < grids.size(); ++l) {
    check.floating("predicted", predicted[l]);
    if (predicted[l].numel() != images * grids[l].count() * 4)
      throw ShapeError(str("centerNetTargets: predicted of level ", l, " must hold ", images, " x ",
                           grids[l].count(), " x 4 numbers, got ", predicted[l].shape()));
  }
  for (int64_t n = 0; n < images; ++n) {
    as_boxes("centerNetTargets", "boxes", boxes[n]);
    check.dtype("labels", labels[n], DType::i32);
    check.shape("labels", labels[n], {boxes[n].size(0)}, "one a box");
  }
}

}  // namespace

void CenterNetTargetOptions::validate(int levels) const {
  if (static_cast<int>(regress_from.size()) != levels)
    throw ConfigError(str("train.regressFrom must hold one number per level (", levels, "), got ",
                          regress_from.size()));
  if (static_cast<int>(regress_to.size()) != levels - 1)
    throw ConfigError(str("train.regressTo must hold one number per level but the last (",
                          levels - 1, "), got ", regress_to.size()));
  for (double v : regress_from)
    if (!(v >= 0) || !std::isfinite(v))
      throw ConfigError(str("train.regressFrom must be numbers >= 0, got ", v));
  for (double v : regress_to)
    if (!(v >= 0) || !std::isfinite(v))
      throw ConfigError(str("train.regressTo must be numbers >= 0, got ", v));
  if (!(min_overlap >= 0 && min_overlap <= 1))
    throw ConfigError(str("train.heatMinOverlap must be in [0, 1], got ", min_overlap));
  if (!(min_radius > 0) || !std::isfinite(min_radius))
    throw ConfigError(str("train.heatMinRadius must be > 0, got ", min_radius));
  if (!(more_positives_loss >= 0 && more_positives_loss <= 2))
    throw ConfigError(str("train.morePositivesLoss must be in [0, 2], got ", more_positives_loss));
  if (more_positives < 1)
    throw ConfigError(str("train.morePositives must be >= 1, got ", more_positives));
}

CenterNetTargets assign_centernet_targets(const std::vector<PointGrid>& grids,
                                          const std::vector<Tensor>& predicted,
                                          const std::vector<Tensor>& boxes,
                                          const std::vector<Tensor>& labels, int64_t classes,
                                          const CenterNetTargetOptions& o) {
  check_inputs(grids, predicted, boxes, labels, classes, o);
  const int64_t images = static_cast<int64_t>(boxes.size());
  std::vector<Level> levels;
  for (size_t l = 0; l < grids.size(); ++l)
    levels.push_back({grids[l], static_cast<float>(o.regress_from[l]),
                      l + 1 < grids.size() ? static_cast<float>(o.regress_to[l]) : 1e9f});
  std::vector<Boxes> truth;
  for (int64_t n = 0; n < images; ++n) truth.emplace_back(boxes[n], labels[n], o);

  CenterNetTargets out;
  for (const Level& level : levels) {
    const int64_t count = level.grid.count(), height = level.grid.height;
    out.heat.push_back(Tensor::zeros({images, count, classes}, DType::f32));
    out.sides.push_back(Tensor::zeros({images, count, 4}, DType::f32));
    out.positive.push_back(Tensor::zeros({images, count}, DType::f32));
    float* heat = out.heat.back().data<float>();
    Sides* sides = reinterpret_cast<Sides*>(out.sides.back().data<float>());
    float* positive = out.positive.back().data<float>();
    std::vector<std::vector<Centre>> centres(images);
    for (int64_t n = 0; n < images; ++n)
      for (int64_t g = 0; g < truth[n].count; ++g)
        centres[n].push_back(level.centre_of(truth[n].box[g]));
    parallel_for(images * height, int64_t{1}, [&](int64_t i) {
      const int64_t n = i / height, row = i % height;
      heat_rows(level, truth[n], centres[n], classes, row, row + 1, heat + n * count * classes);
    });
    parallel_for(images, int64_t{1}, [&](int64_t n) {
      regression_targets(level, truth[n], centres[n], sides + n * count, positive + n * count);
    });
    for (int64_t i = 0; i < images * count; ++i) out.num_positive += positive[i] > 0;
  }

  std::vector<std::vector<ClassPositive>> found(images);
  parallel_for(images, int64_t{1},
               [&](int64_t n) { found[n] = class_positives(levels, predicted, n, truth[n], o); });
  std::vector<std::vector<int32_t>> pairs(levels.size());
  for (int64_t n = 0; n < images; ++n)
    for (const ClassPositive& p : found[n]) {
      const int64_t row = n * grids[p.level].count() + p.cell;
      pairs[p.level].insert(pairs[p.level].end(), {static_cast<int32_t>(row), p.label});
      ++out.num_class_positives;
    }
  for (const std::vector<int32_t>& list : pairs)
    out.class_positives.push_back(Tensor::from(list, {static_cast<int64_t>(list.size()) / 2, 2}));
  return out;
}

namespace {
// Inputs: predicted sides of every level, then boxes and labels of each image; { classes, strides,
// regressFrom, regressTo, heatMinOverlap, heatMinRadius, morePositivesLoss, morePositives }.
// Outputs: heat, sides, positive, class positives of every level in turn.
const bool registered =
    register_op("centerNetTargets", [](const std::vector<Tensor>& in, const Options& o) {
      const std::vector<double> strides = o.numbers("strides", {8, 16, 32, 64, 128});
      const size_t levels = strides.size();
      if (in.size() < levels || (in.size() - levels) % 2 != 0)
        throw ShapeError(str("centerNetTargets: needs sides per level (", levels,
                             "), then boxes and labels per image, got ", in.size(), " tensors"));
      CenterNetTargetOptions options;
      options.regress_from = o.numbers("regressFrom", options.regress_from);
      options.regress_to = o.numbers("regressTo", options.regress_to);
      options.min_overlap = o.number("heatMinOverlap", options.min_overlap);
      options.min_radius = o.number("heatMinRadius", options.min_radius);
      options.more_positives_loss = o.number("morePositivesLoss", options.more_positives_loss);
      options.more_positives = o.integer("morePositives", options.more_positives);
      std::vector<PointGrid> grids;
      const std::vector<Tensor> predicted(in.begin(), in.begin() + levels);
      for (size_t l = 0; l < levels; ++l) {
        Check("centerNetTargets").rank("predicted", predicted[l], 4, "N, H, W, 4");
        grids.push_back(
            {predicted[l].size(1), predicted[l].size(2), strides[l], strides[l], 0.5, strides[l]});
      }
      std::vector<Tensor> boxes, labels;
      for (size_t i = levels; i < in.size(); i += 2) {
        boxes.push_back(in[i]);
        labels.push_back(in[i + 1]);
      }
      const int64_t classes = o.integer("classes", 1);
      for (const Tensor& list : labels) {
        Check("centerNetTargets").dtype("labels", list, DType::i32);
        for (int32_t label : list.to_vector<int32_t>())
          if (label < 0 || label >= classes)
            throw RangeError(
                str("centerNetTargets: labels must be in [0, ", classes - 1, "], got ", label));
      }
      const CenterNetTargets t =
          assign_centernet_targets(grids, predicted, boxes, labels, classes, options);
      std::vector<Tensor> out;
      for (size_t l = 0; l < levels; ++l)
        out.insert(out.end(), {t.heat[l], t.sides[l], t.positive[l], t.class_positives[l]});
      return out;
    });
}  // namespace

}  // namespace mixpl
