#include "core/parallel.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"

namespace mixpl::cpu {

void boxes_from_deltas_forward(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                               Tensor& boxes) {
  const Box* anchor = reinterpret_cast<const Box*>(anchors.data<float>());
  Box* box = reinterpret_cast<Box*>(boxes.data<float>());
  const int64_t count = anchors.size(0);
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    const auto* d = deltas.data<decltype(tag)>();
    parallel_for(boxes.size(0), [&](int64_t i) {
      const auto* own = d + 4 * i;
      box[i] = coder.decode(anchor[i % count],
                            {float(own[0]), float(own[1]), float(own[2]), float(own[3])});
    });
  });
}

// x1 = cx - w / 2, x2 = cx + w / 2 with cx = ax + (dx std + mean) aw and w = aw exp(dw std + mean).
void boxes_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& anchors,
                                const DeltaCoder& coder, Tensor& ddeltas) {
  const Box* anchor = reinterpret_cast<const Box*>(anchors.data<float>());
  const float* dbox = dboxes.data<float>();
  const int64_t count = anchors.size(0);
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* d = deltas.data<T>();
    T* out = ddeltas.data<T>();
    parallel_for(dboxes.size(0), [&](int64_t i) {
      const float* g = dbox + 4 * i;
      const Box a = anchor[i % count];
      for (int axis = 0; axis < 2; ++axis) {
        const float side = axis == 0 ? a.x2 - a.x1 : a.y2 - a.y1;
        const float shift = g[axis] + g[axis + 2], spread = g[axis + 2] - g[axis];
        out[4 * i + axis] = T(shift * side * coder.stds[axis]);
        const float size =
            float(d[4 * i + 2 + axis]) * coder.stds[2 + axis] + coder.means[2 + axis];
        const bool held = size > coder.limit || (coder.both_sides && size < -coder.limit);
        out[4 * i + 2 + axis] = T(
            spread == 0 || held ? 0.0f : 0.5f * spread * side * expf(size) * coder.stds[2 + axis]);
      }
    });
  });
}

}  // namespace mixpl::cpu
