#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "detect/centernet_targets.h"

namespace mixpl::cpu {
namespace {

// The boxes of an image as one level sees them.
struct LevelBoxes {
  const CenterNetView& view;
  int level;
  int64_t image;
  const Box* box;
  const int32_t* label;
  std::vector<BoxCentre> centres;

  LevelBoxes(const CenterNetView& v, int l, int64_t n)
      : view(v),
        level(l),
        image(n),
        box(v.truth.boxes + v.truth.begin(n)),
        label(v.truth.labels + v.truth.begin(n)) {
    for (int32_t g = 0; g < v.truth.count(n); ++g) centres.push_back(v.centre_in(l, box[g]));
  }
};

// The heat of one row of cells, zeroed before.
void heat_row(const LevelBoxes& boxes, int64_t row) {
  const CenterNetView& view = boxes.view;
  const PointGrid& grid = view.level[boxes.level].grid;
  float* heat =
      view.heat[boxes.level] + (boxes.image * grid.count() + row * grid.width) * view.classes;
  const float y = grid.y(row * grid.width);
  for (size_t g = 0; g < boxes.centres.size(); ++g) {
    const Box& b = boxes.box[g];
    const float dy = y - centre_of(b).y;
    if (dy * dy / view.spread(b) > kFarthest && boxes.centres[g].row != row) continue;
    for (int64_t column = 0; column < grid.width; ++column) {
      const float distance = view.distance(boxes.level, row, column, b, boxes.centres[g]);
      if (distance > kFarthest) continue;
      const float value = exp_f32(-distance);
      float& slot = heat[column * view.classes + boxes.label[g]];
      if (value >= kLeastHeat && value > slot) slot = value;
    }
  }
}

// The boxes that the points of a level answer for.
void regression_targets(const LevelBoxes& boxes) {
  const CenterNetView& view = boxes.view;
  const int l = boxes.level;
  const PointGrid& grid = view.level[l].grid;
  Sides* sides = view.sides[l] + boxes.image * grid.count();
  float* positive = view.positive[l] + boxes.image * grid.count();
  std::vector<float> least;
  for (size_t g = 0; g < boxes.centres.size(); ++g) {
    const BoxCentre& centre = boxes.centres[g];
    if (!centre.fits) continue;
    for (int k = 0; k < kCentreCells; ++k) {
      const int64_t row = centre.row + k / 3 - 1, column = centre.column + k % 3 - 1;
      if (row < 0 || row >= grid.height || column < 0 || column >= grid.width) continue;
      const int64_t cell = row * grid.width + column;
      const Sides s = view.sides_from(l, cell, boxes.box[g]);
      if (!(CenterNetView::inside(s) > 0)) continue;
      const float distance = view.distance(l, row, column, boxes.box[g], centre);
      if (least.empty()) least.assign(grid.count(), INFINITY);
      if (!(distance < least[cell])) continue;
      least[cell] = distance;
      sides[cell] = view.in_units(l, s);
      positive[cell] = 1;
    }
  }
}

}  // namespace

void fill_centernet_targets(const CenterNetView& view) {
  for (int l = 0; l < view.pyramid.levels; ++l) {
    std::vector<LevelBoxes> boxes;
    for (int64_t n = 0; n < view.images; ++n) boxes.emplace_back(view, l, n);
    const int64_t height = view.level[l].grid.height;
    parallel_for(view.images * height, int64_t{1},
                 [&](int64_t i) { heat_row(boxes[i / height], i % height); });
    parallel_for(view.images, int64_t{1}, [&](int64_t n) { regression_targets(boxes[n]); });
  }
}

void find_class_positives(const CenterNetView& view, const std::vector<Tensor>& predicted,
                          int64_t boxes, std::vector<Tensor>& pairs, Tensor& count) {
  const int levels = view.pyramid.levels, cells = levels * kCentreCells;
  std::vector<float> losses(boxes * cells);
  std::vector<int32_t> rows(boxes * cells);
  if (levels > 0)
    dispatch_floating(predicted[0].dtype(), [&](auto tag) {
      using T = decltype(tag);
      const CentreCells<T> centre{view, pointers<const T, T>(predicted)};
      parallel_for(boxes * cells, int64_t{1024}, [&](int64_t i) {
        const auto cell =
            centre.at(static_cast<int32_t>(i / cells), static_cast<int>(i % cells) / kCentreCells,
                      static_cast<int>(i % kCentreCells));
        losses[i] = cell.loss;
        rows[i] = static_cast<int32_t>(cell.row);
      });
    });
  int64_t found = 0;
  for (int l = 0; l < levels; ++l) {
    std::vector<int32_t> list;
    for (int64_t g = 0; g < boxes; ++g)
      for (int k = 0; k < kCentreCells; ++k) {
        const int64_t i = g * cells + l * kCentreCells + k;
        if (view.is_class_positive(losses[i], losses.data() + g * cells))
          list.insert(list.end(), {rows[i], view.truth.labels[g]});
      }
    const int64_t pairs_here = static_cast<int64_t>(list.size()) / 2;
    pairs.push_back(Tensor::from(list, {pairs_here, 2}));
    found += pairs_here;
  }
  *count.data<float>() = static_cast<float>(std::max<int64_t>(found, 1));
}

}  // namespace mixpl::cpu
