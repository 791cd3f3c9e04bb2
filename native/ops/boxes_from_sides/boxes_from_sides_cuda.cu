#include "core/cuda/kernel.h"
#include "ops/boxes_from_sides/boxes_from_sides.h"
#include "ops/boxes_from_sides/boxes_from_sides_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct BoxView {
  const T* __restrict__ sides;
  float* __restrict__ boxes;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Vec<T, 4> s = load_vec<T, 4>(sides + 4 * i);
    const Box b = box_around_origin({float(s[0]), float(s[1]), float(s[2]), float(s[3])});
    store_vec(boxes + 4 * i, Vec<float, 4>{b.x1, b.y1, b.x2, b.y2});
  }
};

template <typename T>
struct GradientView {
  const float* __restrict__ dboxes;
  T* __restrict__ dsides;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Vec<float, 4> d = load_vec<float, 4>(dboxes + 4 * i);
    const Sides s = sides_gradient({d[0], d[1], d[2], d[3]});
    store_vec(dsides + 4 * i, Vec<T, 4>{T(s.left), T(s.top), T(s.right), T(s.bottom)});
  }
};

}  // namespace

void boxes_from_sides_forward(const Tensor& sides, Tensor& boxes) {
  dispatch_floating(sides.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(boxes.size(0), BoxView<T>{sides.data<T>(), boxes.data<float>()});
  });
}

void boxes_from_sides_backward(const Tensor& dboxes, Tensor& dsides) {
  dispatch_floating(dsides.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(dboxes.size(0), GradientView<T>{dboxes.data<float>(), dsides.data<T>()});
  });
}

}  // namespace mixpl::cuda
