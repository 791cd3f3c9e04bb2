#include "detect/gfl_targets.h"

#include "core/launch.h"
#include "detect/positive_rows.h"

namespace mixpl {

GflPositives gfl_positives(const Tensor& boxes, const Tensor& positive, const Tensor& anchors,
                           double stride, const Tensor& logits, int64_t bins, int64_t most) {
  const Device device = positive.device();
  GflPositives out;
  out.rows = positive_rows(positive, most);
  const int64_t p = out.rows.numel();
  out.sides = Tensor::empty({p, 4}, DType::f32, device);
  out.held = Tensor::empty({p, 4}, DType::f32, device);
  out.weight = Tensor::empty({p}, DType::f32, device);
  dispatch_floating(logits.dtype(), [&](auto tag) {
    using T = decltype(tag);
    const GflView<T> view{out.rows.data<int32_t>(),
                          reinterpret_cast<const Box*>(boxes.data<float>()),
                          reinterpret_cast<const Box*>(anchors.data<float>()),
                          anchors.size(0),
                          static_cast<float>(stride),
                          static_cast<float>(bins - 1) - 0.1f,
                          logits.data<T>(),
                          logits.size(-1),
                          reinterpret_cast<Sides*>(out.sides.data<float>()),
                          reinterpret_cast<Sides*>(out.held.data<float>()),
                          out.weight.data<float>()};
    MIXPL_DISPATCH(device, fill_gfl_positives, p, view);
  });
  return out;
}

Tensor overlaps_at(const Tensor& rows, const Tensor& boxes, const Tensor& target, int64_t count) {
  Tensor overlaps = Tensor::zeros({count}, DType::f32, rows.device());
  const OverlapAtView view{rows.data<int32_t>(), reinterpret_cast<const Box*>(boxes.data<float>()),
                           reinterpret_cast<const Box*>(target.data<float>()),
                           overlaps.data<float>()};
  MIXPL_DISPATCH(rows.device(), fill_overlaps_at, rows.numel(), view);
  return overlaps;
}

}  // namespace mixpl
