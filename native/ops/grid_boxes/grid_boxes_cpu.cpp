#include "core/parallel.h"
#include "ops/grid_boxes/grid_boxes.h"

namespace mixpl::cpu {

void grid_boxes_forward(const Tensor& sides, float offset, Tensor& boxes) {
  const int64_t h = sides.size(1), w = sides.size(2);
  const float* in = sides.data<float>();
  float* out = boxes.data<float>();
  parallel_for(sides.numel() / 4, [=](int64_t cell) {
    const float x = static_cast<float>(cell % w) + offset;
    const float y = static_cast<float>(cell / w % h) + offset;
    const float* d = in + 4 * cell;
    float* b = out + 4 * cell;
    b[0] = x - d[0];
    b[1] = y - d[1];
    b[2] = x + d[2];
    b[3] = y + d[3];
  });
}

void grid_boxes_backward(const Tensor& dboxes, Tensor& dsides) {
  const float* in = dboxes.data<float>();
  float* out = dsides.data<float>();
  parallel_for(dboxes.numel(), [=](int64_t i) { out[i] = i % 4 < 2 ? -in[i] : in[i]; });
}

}  // namespace mixpl::cpu
