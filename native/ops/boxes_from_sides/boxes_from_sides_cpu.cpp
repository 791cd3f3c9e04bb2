#include "core/parallel.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/boxes_from_sides/boxes_from_sides_math.h"

namespace mixpl::cpu {

void boxes_from_sides_forward(const Tensor& sides, Tensor& boxes) {
  Box* box = reinterpret_cast<Box*>(boxes.data<float>());
  dispatch_floating(sides.dtype(), [&](auto tag) {
    const auto* side = sides.data<decltype(tag)>();
    parallel_for(boxes.size(0), int64_t{1} << 13, [&](int64_t i) {
      const auto* s = side + 4 * i;
      box[i] = box_around_origin({float(s[0]), float(s[1]), float(s[2]), float(s[3])});
    });
  });
}

void boxes_from_sides_backward(const Tensor& dboxes, Tensor& dsides) {
  const Box* d = reinterpret_cast<const Box*>(dboxes.data<float>());
  dispatch_floating(dsides.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = dsides.data<T>();
    parallel_for(dboxes.size(0), int64_t{1} << 13, [&](int64_t i) {
      const Sides s = sides_gradient(d[i]);
      out[4 * i] = T(s.left);
      out[4 * i + 1] = T(s.top);
      out[4 * i + 2] = T(s.right);
      out[4 * i + 3] = T(s.bottom);
    });
  });
}

}  // namespace mixpl::cpu
