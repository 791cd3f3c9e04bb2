#include "core/cuda/kernel.h"
#include "core/cuda/packs.h"
#include "ops/refined_boxes/refined_boxes.h"
#include "ops/refined_boxes/refined_boxes_math.h"

namespace mixpl::cuda {
namespace {

// A thread a box; references have kMoved numbers.
template <typename T, int kMoved>
struct RefineView {
  const T* __restrict__ deltas;
  const float* __restrict__ references;
  float eps;
  float* __restrict__ boxes;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto d = load_vec<T, 4>(deltas + 4 * i);
    const auto r = load_vec<float, kMoved>(references + kMoved * i);
    Vec<float, 4> out;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      out[k] = k < kMoved ? refined(float(d[k]), r[k % kMoved], eps).p : sigmoids(float(d[k])).p;
    store_vec(boxes + 4 * i, out);
  }
};

template <typename T, int kMoved>
struct GradientView {
  const float* __restrict__ dboxes;
  const T* __restrict__ deltas;
  const float* __restrict__ references;
  float eps;
  T* __restrict__ ddeltas;  // null: not wanted
  float* __restrict__ dreferences;

  MIXPL_DEVICE void operator()(int64_t i) const {
    const auto g = load_vec<float, 4>(dboxes + 4 * i);
    const auto d = load_vec<T, 4>(deltas + 4 * i);
    const auto r = load_vec<float, kMoved>(references + kMoved * i);
    Vec<T, 4> dd;
    Vec<float, kMoved> dr;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float delta = float(d[k]);
      const Sigmoids s = k < kMoved ? refined(delta, r[k % kMoved], eps) : sigmoids(delta);
      const float dlogit = g[k] * s.p * s.q;
      dd[k] = T(dlogit);
      if (k < kMoved) dr[k % kMoved] = dlogit * logit_slope(r[k % kMoved], eps);
    }
    if (ddeltas) store_vec(ddeltas + 4 * i, dd);
    if (dreferences) store_vec(dreferences + kMoved * i, dr);
  }
};

// f(a number of the deltas' type, the width of the references as a constant)
template <typename F>
void dispatch(const Tensor& deltas, const Tensor& references, F&& f) {
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    if (references.size(2) == 4)
      f(tag, PackOf<4>());
    else
      f(tag, PackOf<2>());
  });
}

}  // namespace

void refined_boxes_forward(const Tensor& deltas, const Tensor& references, float eps,
                           Tensor& boxes) {
  dispatch(deltas, references, [&](auto tag, auto width) {
    using T = decltype(tag);
    for_each(boxes.numel() / 4,
             RefineView<T, decltype(width)::value>{deltas.data<T>(), references.data<float>(), eps,
                                                   boxes.data<float>()});
  });
}

void refined_boxes_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& references,
                            float eps, Tensor& ddeltas, Tensor& dreferences) {
  dispatch(deltas, references, [&](auto tag, auto width) {
    using T = decltype(tag);
    for_each(dboxes.numel() / 4,
             GradientView<T, decltype(width)::value>{
                 dboxes.data<float>(), deltas.data<T>(), references.data<float>(), eps,
                 ddeltas.defined() ? ddeltas.data<T>() : nullptr,
                 dreferences.defined() ? dreferences.data<float>() : nullptr});
  });
}

}  // namespace mixpl::cuda
