#include <type_traits>

#include "core/parallel.h"
#include "ops/refined_boxes/refined_boxes.h"
#include "ops/refined_boxes/refined_boxes_math.h"

namespace mixpl::cpu {
namespace {

constexpr int64_t kBoxesAThread = 1024;

// The width of the references as a constant.
template <typename F>
void with_width(const Tensor& references, F&& f) {
  if (references.size(2) == 4)
    f(std::integral_constant<int, 4>());
  else
    f(std::integral_constant<int, 2>());
}

}  // namespace

void refined_boxes_forward(const Tensor& deltas, const Tensor& references, float eps,
                           Tensor& boxes) {
  const float* r = references.data<float>();
  float* out = boxes.data<float>();
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    const auto* d = deltas.data<decltype(tag)>();
    with_width(references, [&](auto width) {
      constexpr int kMoved = decltype(width)::value;
      parallel_for(boxes.numel() / 4, kBoxesAThread, [&](int64_t i) {
        for (int k = 0; k < 4; ++k)
          out[4 * i + k] = k < kMoved ? refined(float(d[4 * i + k]), r[kMoved * i + k], eps).p
                                      : sigmoids(float(d[4 * i + k])).p;
      });
    });
  });
}

void refined_boxes_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& references,
                            float eps, Tensor& ddeltas, Tensor& dreferences) {
  const float* g = dboxes.data<float>();
  const float* r = references.data<float>();
  float* dr = dreferences.defined() ? dreferences.data<float>() : nullptr;
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* d = deltas.data<T>();
    T* dd = ddeltas.defined() ? ddeltas.data<T>() : nullptr;
    with_width(references, [&](auto width) {
      constexpr int kMoved = decltype(width)::value;
      parallel_for(dboxes.numel() / 4, kBoxesAThread, [&](int64_t i) {
        for (int k = 0; k < 4; ++k) {
          const float delta = float(d[4 * i + k]);
          const Sigmoids s = k < kMoved ? refined(delta, r[kMoved * i + k], eps) : sigmoids(delta);
          const float dlogit = g[4 * i + k] * s.p * s.q;
          if (dd) dd[4 * i + k] = T(dlogit);
          if (dr && k < kMoved) dr[kMoved * i + k] = dlogit * logit_slope(r[kMoved * i + k], eps);
        }
      });
    });
  });
}

}  // namespace mixpl::cpu
