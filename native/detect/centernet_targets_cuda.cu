#include "core/cuda/kernel.h"
#include "detect/centernet_targets.h"

namespace mixpl::cuda {
namespace {

// One point: the heat of its classes, zeroed before, and the box it answers for.
struct PointTargets {
  CenterNetView view;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Place p = place_of(view.pyramid, i);
    const int64_t width = view.level[p.level].grid.width;
    const int64_t row = p.cell / width, column = p.cell % width;
    float* heat = view.heat[p.level] + p.at * view.classes;
    float least = INFINITY;
    Sides sides{0, 0, 0, 0};
    const int32_t first = view.truth.begin(p.image), last = view.truth.begin(p.image + 1);
    for (int32_t g = first; g < last; ++g) {
      const Box b = view.truth.boxes[g];
      const BoxCentre centre = view.centre_in(p.level, b);
      const float distance = view.distance(p.level, row, column, b, centre);
      if (!(distance > kFarthest)) {
        const float value = exp_f32(-distance);
        float& slot = heat[view.truth.labels[g]];
        if (value >= kLeastHeat && value > slot) slot = value;
      }
      if (!centre.fits || !near(row, centre.row) || !near(column, centre.column)) continue;
      const Sides s = view.sides_from(p.level, p.cell, b);
      if (!(CenterNetView::inside(s) > 0) || !(distance < least)) continue;
      least = distance;
      sides = view.in_units(p.level, s);
    }
    view.sides[p.level][p.at] = sides;
    view.positive[p.level][p.at] = least < INFINITY ? 1.0f : 0.0f;
  }
  MIXPL_DEVICE static bool near(int64_t a, int64_t b) { return a >= b - 1 && a <= b + 1; }
};

// Index of a cell about a box's centre: box, level, cell.
struct CellIndex {
  int32_t box;
  int level, cell;
  MIXPL_DEVICE CellIndex(int64_t i, int levels)
      : box(static_cast<int32_t>(i / (levels * kCentreCells))),
        level(static_cast<int>(i / kCentreCells % levels)),
        cell(static_cast<int>(i % kCentreCells)) {}
};

template <typename T>
struct CellLoss {
  CentreCells<T> cells;
  float* losses;
  int32_t* rows;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const CellIndex index(i, cells.view.pyramid.levels);
    const auto cell = cells.at(index.box, index.level, index.cell);
    losses[i] = cell.loss;
    rows[i] = static_cast<int32_t>(cell.row);
  }
};

// Leaves the row where the cell is a positive, puts -1 where it is not.
struct KeepPositives {
  CenterNetView view;
  const float* losses;
  const int32_t* rows;
  PerLevel<int32_t> pairs;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const CellIndex index(i, view.pyramid.levels);
    const float* own = losses + int64_t{index.box} * view.pyramid.levels * kCentreCells;
    const bool kept = view.is_class_positive(losses[i], own);
    int32_t* pair = pairs[index.level] + 2 * (int64_t{index.box} * kCentreCells + index.cell);
    pair[0] = kept ? rows[i] : -1;
    pair[1] = view.truth.labels[index.box];
  }
};

struct IsPair {
  PerLevel<int32_t> pairs;
  int64_t each;  // of a level
  MIXPL_DEVICE float operator()(int64_t i) const {
    return pairs[static_cast<int>(i / each)][2 * (i % each)] >= 0 ? 1.0f : 0.0f;
  }
};

struct AtLeastOne {
  float* value;
  MIXPL_DEVICE void operator()(int64_t) const { *value = *value < 1.0f ? 1.0f : *value; }
};

}  // namespace

void fill_centernet_targets(const CenterNetView& view) {
  for_each(view.images * view.pyramid.count(), PointTargets{view});
}

void find_class_positives(const CenterNetView& view, const std::vector<Tensor>& predicted,
                          int64_t boxes, std::vector<Tensor>& pairs, Tensor& count) {
  const int levels = view.pyramid.levels;
  const int64_t each = boxes * kCentreCells, cells = levels * each;
  const Device device = count.device();
  for (int l = 0; l < levels; ++l) pairs.push_back(Tensor::empty({each, 2}, DType::i32, device));
  Tensor losses = Tensor::empty({cells}, DType::f32, device),
         rows = Tensor::empty({cells}, DType::i32, device);
  const PerLevel<int32_t> lists = pointers<int32_t>(pairs);
  if (levels > 0)
    dispatch_floating(predicted[0].dtype(), [&](auto tag) {
      using T = decltype(tag);
      const CentreCells<T> centre{view, pointers<const T, T>(predicted)};
      for_each(cells, CellLoss<T>{centre, losses.data<float>(), rows.data<int32_t>()});
    });
  for_each(cells, KeepPositives{view, losses.data<float>(), rows.data<int32_t>(), lists});
  reduce_sum(cells, IsPair{lists, each}, count.data<float>());
  for_each(1, AtLeastOne{count.data<float>()});
}

}  // namespace mixpl::cuda
