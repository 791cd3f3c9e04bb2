#include "ops/scaled_sum/scaled_sum.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "ops/registry.h"

namespace mixpl {

// One number a level: computed on the host on every device.
Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale) {
  const Check check("scaledSum");
  double sum = 0;
  for (const Tensor& s : scalars) {
    check.dtype("scalars", s, DType::f32);
    check.shape("scalars", s, {}, "a scalar");
    sum += s.item();
  }
  Tensor y = Tensor::full({}, static_cast<float>(sum * scale), DType::f32);
  record(y, scalars, [count = scalars.size(), scale](const Tensor& dy) {
    const Tensor d = Tensor::full({}, dy.item() * scale, DType::f32);
    return Gradients(count, d);
  });
  return y;
}

namespace {
const bool registered =
    register_op("scaledSum", [](const std::vector<Tensor>& in, const Options& o) {
      return std::vector<Tensor>{scaled_sum(in, static_cast<float>(o.number("scale", 1)))};
    });
}  // namespace

}  // namespace mixpl
