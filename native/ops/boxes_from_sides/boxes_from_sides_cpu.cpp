#include "core/parallel.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"

namespace mixpl::cpu {

void boxes_from_sides_forward(const Tensor& sides, Tensor& boxes) {
  float* box = boxes.data<float>();
  dispatch_floating(sides.dtype(), [&](auto tag) {
    const auto* side = sides.data<decltype(tag)>();
    parallel_for(sides.numel(), int64_t{1} << 15,
                 [&](int64_t i) { box[i] = i % 4 < 2 ? -float(side[i]) : float(side[i]); });
  });
}

void boxes_from_sides_backward(const Tensor& dboxes, Tensor& dsides) {
  const float* d = dboxes.data<float>();
  dispatch_floating(dsides.dtype(), [&](auto tag) {
    using T = decltype(tag);
    T* out = dsides.data<T>();
    parallel_for(dsides.numel(), int64_t{1} << 15,
                 [&](int64_t i) { out[i] = T(i % 4 < 2 ? -d[i] : d[i]); });
  });
}

}  // namespace mixpl::cpu
