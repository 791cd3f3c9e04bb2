#include "core/parallel.h"
#include "ops/boxes_from_sides/boxes_from_sides_math.h"
#include "ops/grid_boxes/grid_boxes.h"
#include "ops/grid_boxes/grid_boxes_math.h"

namespace mixpl::cpu {

void grid_boxes_forward(const Tensor& sides, float offset, Tensor& boxes) {
  const int64_t h = sides.size(1), w = sides.size(2);
  const Sides* in = reinterpret_cast<const Sides*>(sides.data<float>());
  Box* out = reinterpret_cast<Box*>(boxes.data<float>());
  parallel_for(sides.numel() / 4,
               [=](int64_t cell) { out[cell] = grid_box(cell, h, w, offset, in[cell]); });
}

void grid_boxes_backward(const Tensor& dboxes, Tensor& dsides) {
  const Box* in = reinterpret_cast<const Box*>(dboxes.data<float>());
  Sides* out = reinterpret_cast<Sides*>(dsides.data<float>());
  parallel_for(dboxes.numel() / 4, [=](int64_t i) { out[i] = sides_gradient(in[i]); });
}

}  // namespace mixpl::cpu
