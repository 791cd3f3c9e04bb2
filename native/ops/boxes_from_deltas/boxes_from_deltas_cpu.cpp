#include "core/parallel.h"
#include "ops/boxes_from_deltas/boxes_from_deltas.h"
#include "ops/boxes_from_deltas/boxes_from_deltas_math.h"

namespace mixpl::cpu {
namespace {
template <typename T>
Delta delta_at(const T* d) {
  return {float(d[0]), float(d[1]), float(d[2]), float(d[3])};
}
}  // namespace

void boxes_from_deltas_forward(const Tensor& deltas, const Tensor& anchors, const DeltaCoder& coder,
                               Tensor& boxes) {
  const Box* anchor = reinterpret_cast<const Box*>(anchors.data<float>());
  Box* box = reinterpret_cast<Box*>(boxes.data<float>());
  const int64_t count = anchors.size(0);
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    const auto* d = deltas.data<decltype(tag)>();
    parallel_for(boxes.size(0),
                 [&](int64_t i) { box[i] = coder.decode(anchor[i % count], delta_at(d + 4 * i)); });
  });
}

void boxes_from_deltas_backward(const Tensor& dboxes, const Tensor& deltas, const Tensor& anchors,
                                const DeltaCoder& coder, Tensor& ddeltas) {
  const Box* anchor = reinterpret_cast<const Box*>(anchors.data<float>());
  const Box* dbox = reinterpret_cast<const Box*>(dboxes.data<float>());
  const int64_t count = anchors.size(0);
  dispatch_floating(deltas.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const T* d = deltas.data<T>();
    T* out = ddeltas.data<T>();
    parallel_for(dboxes.size(0), [&](int64_t i) {
      const Delta g = delta_gradient(dbox[i], anchor[i % count], delta_at(d + 4 * i), coder);
      out[4 * i] = T(g.x);
      out[4 * i + 1] = T(g.y);
      out[4 * i + 2] = T(g.w);
      out[4 * i + 3] = T(g.h);
    });
  });
}

}  // namespace mixpl::cpu
