#include "core/cuda/kernel.h"
#include "ops/centers_from_deltas/centers_from_deltas.h"
#include "ops/centers_from_deltas/centers_from_deltas_math.h"

namespace mixpl::cuda {
namespace {

template <typename T>
MIXPL_DEVICE CenterBox numbers_at(const T* p) {
  const auto v = load_vec<T, 4>(p);
  return {float(v[0]), float(v[1]), float(v[2]), float(v[3])};
}
template <typename T>
MIXPL_DEVICE void store_numbers(T* p, CenterBox b) {
  store_vec(p, Vec<T, 4>{T(b.cx), T(b.cy), T(b.w), T(b.h)});
}

// A thread a box.
template <typename T>
struct DecodeView {
  const T* __restrict__ deltas;
  const float* __restrict__ references;
  DeltaCoder coder;
  float* __restrict__ boxes;

  MIXPL_DEVICE void operator()(int64_t i) const {
    store_numbers(boxes + 4 * i, box_from_delta(numbers_at(deltas + 4 * i),
                                                numbers_at(references + 4 * i), coder));
  }
};

template <typename T>
struct GradientView {
  const float* __restrict__ dboxes;
  const T* __restrict__ deltas;
  const float* __restrict__ references;
  DeltaCoder coder;
  T* __restrict__ ddeltas;  // null: not wanted
  float* __restrict__ dreferences;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const BoxDeltaGradients g =
        box_delta_gradients(numbers_at(dboxes + 4 * i), numbers_at(deltas + 4 * i),
                            numbers_at(references + 4 * i), coder);
    if (ddeltas) store_numbers(ddeltas + 4 * i, g.delta);
    if (dreferences) store_numbers(dreferences + 4 * i, g.reference);
  }
};

}  // namespace

void centers_from_deltas_forward(const Tensor& deltas, const Tensor& references,
                                 const DeltaCoder& coder, Tensor& boxes) {
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(boxes.numel() / 4,
             DecodeView<T>{deltas.data<T>(), references.data<float>(), coder, boxes.data<float>()});
  });
}

void centers_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas,
                                  const Tensor& references, const DeltaCoder& coder,
                                  Tensor& ddeltas, Tensor& dreferences) {
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    for_each(dboxes.numel() / 4,
             GradientView<T>{dboxes.data<float>(), deltas.data<T>(), references.data<float>(),
                             coder, ddeltas.defined() ? ddeltas.data<T>() : nullptr,
                             dreferences.defined() ? dreferences.data<float>() : nullptr});
  });
}

}  // namespace mixpl::cuda
