#include "core/cuda/kernel.h"
#include "ops/boxes_from_sides/boxes_from_sides_math.h"
#include "ops/grid_boxes/grid_boxes.h"
#include "ops/grid_boxes/grid_boxes_math.h"

namespace mixpl::cuda {
namespace {

struct BoxView {
  const float* __restrict__ sides;
  int64_t h, w;
  float offset;
  float* __restrict__ boxes;

  MIXPL_DEVICE void operator()(int64_t cell) const {
    const Vec<float, 4> s = load_vec<float, 4>(sides + 4 * cell);
    const Box b = grid_box(cell, h, w, offset, {s[0], s[1], s[2], s[3]});
    store_vec(boxes + 4 * cell, Vec<float, 4>{b.x1, b.y1, b.x2, b.y2});
  }
};

struct GradientView {
  const float* __restrict__ dboxes;
  float* __restrict__ dsides;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Vec<float, 4> d = load_vec<float, 4>(dboxes + 4 * i);
    const Sides s = sides_gradient({d[0], d[1], d[2], d[3]});
    store_vec(dsides + 4 * i, Vec<float, 4>{s.left, s.top, s.right, s.bottom});
  }
};

}  // namespace

void grid_boxes_forward(const Tensor& sides, float offset, Tensor& boxes) {
  for_each(sides.numel() / 4,
           BoxView{sides.data<float>(), sides.size(1), sides.size(2), offset, boxes.data<float>()});
}

void grid_boxes_backward(const Tensor& dboxes, Tensor& dsides) {
  for_each(dboxes.numel() / 4, GradientView{dboxes.data<float>(), dsides.data<float>()});
}

}  // namespace mixpl::cuda
