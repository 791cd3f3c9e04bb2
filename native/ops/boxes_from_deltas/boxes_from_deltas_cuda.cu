#include "core/cuda/kernel.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"
#include "ops/boxes_from_deltas/boxes_from_deltas_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
struct Coded {
  const T* __restrict__ deltas;
  const float* __restrict__ anchors;
  int64_t count;  // of anchors: box i has anchor i % count
  DeltaCoder coder;

  MIXPL_DEVICE Delta delta(int64_t i) const {
    const Vec<T, 4> d = load_vec<T, 4>(deltas + 4 * i);
    return {float(d[0]), float(d[1]), float(d[2]), float(d[3])};
  }
  MIXPL_DEVICE Box anchor(int64_t i) const {
    const Vec<float, 4> a = load_vec<float, 4>(anchors + 4 * (i % count));
    return {a[0], a[1], a[2], a[3]};
  }
};

template <typename T>
struct DecodeView {
  Coded<T> in;
  float* __restrict__ boxes;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Box b = in.coder.decode(in.anchor(i), in.delta(i));
    store_vec(boxes + 4 * i, Vec<float, 4>{b.x1, b.y1, b.x2, b.y2});
  }
};

template <typename T>
struct GradientView {
  Coded<T> in;
  const float* __restrict__ dboxes;
  T* __restrict__ ddeltas;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const Vec<float, 4> d = load_vec<float, 4>(dboxes + 4 * i);
    const Delta g = delta_gradient({d[0], d[1], d[2], d[3]}, in.anchor(i), in.delta(i), in.coder);
    store_vec(ddeltas + 4 * i, Vec<T, 4>{T(g.x), T(g.y), T(g.w), T(g.h)});
  }
};

template <typename T>
Coded<T> coded(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder) {
  return {deltas.data<T>(), anchors.data<float>(), anchors.size(0), coder};
}

}  // namespace

void boxes_from_deltas_forward(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                               Tensor& boxes) {
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(boxes.size(0), DecodeView<T>{coded<T>(deltas, anchors, coder), boxes.data<float>()});
  });
}

void boxes_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& anchors,
                                const DeltaCoder& coder, Tensor& ddeltas) {
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(dboxes.size(0), GradientView<T>{coded<T>(deltas, anchors, coder), dboxes.data<float>(),
                                             ddeltas.data<T>()});
  });
}

}  // namespace mixpl::cuda
