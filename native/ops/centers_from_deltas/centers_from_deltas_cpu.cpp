#include "core/parallel.h"
#include "ops/centers_from_deltas/centers_from_deltas.h"
#include "ops/centers_from_deltas/centers_from_deltas_math.h"

namespace mixpl::cpu {
namespace {

const CenterBox* boxes_of(const Tensor& t) {
  return reinterpret_cast<const CenterBox*>(t.data<float>());
}
template <typename T>
CenterBox numbers_at(const T* p) {
  return {float(p[0]), float(p[1]), float(p[2]), float(p[3])};
}

}  // namespace

void centers_from_deltas_forward(const Tensor& deltas, const Tensor& references,
                                 const DeltaCoder& coder, Tensor& boxes) {
  const CenterBox* reference = boxes_of(references);
  CenterBox* out = reinterpret_cast<CenterBox*>(boxes.data<float>());
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    const auto* d = deltas.data<decltype(tag)>();
    parallel_for(boxes.numel() / 4, [&](int64_t i) {
      out[i] = box_from_delta(numbers_at(d + 4 * i), reference[i], coder);
    });
  });
}

void centers_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas,
                                  const Tensor& references, const DeltaCoder& coder,
                                  Tensor& ddeltas, Tensor& dreferences) {
  const CenterBox *dbox = boxes_of(dboxes), *reference = boxes_of(references);
  CenterBox* dreference =
      dreferences.defined() ? reinterpret_cast<CenterBox*>(dreferences.data<float>()) : nullptr;
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* d = deltas.data<T>();
    T* ddelta = ddeltas.defined() ? ddeltas.data<T>() : nullptr;
    parallel_for(dboxes.numel() / 4, [&](int64_t i) {
      const auto [g, r] = box_delta_gradients(dbox[i], numbers_at(d + 4 * i), reference[i], coder);
      if (ddelta) {
        ddelta[4 * i] = T(g.cx);
        ddelta[4 * i + 1] = T(g.cy);
        ddelta[4 * i + 2] = T(g.w);
        ddelta[4 * i + 3] = T(g.h);
      }
      if (dreference) dreference[i] = r;
    });
  });
}

}  // namespace mixpl::cpu
