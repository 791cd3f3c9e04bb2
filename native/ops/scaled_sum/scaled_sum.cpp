#include "ops/scaled_sum/scaled_sum.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum_math.h"

namespace mixpl {

Tensor scaled_sum(const std::vector<Tensor>& scalars, const Divisor& divisor, float scale) {
  const Check check("scaledSum");
  check.in_range("scalars (their number)", static_cast<double>(scalars.size()), 0,
                 kMostScaledTerms);
  for (const Tensor& s : scalars) {
    check.dtype("scalars", s, DType::f32);
    check.shape("scalars", s, {}, "a scalar");
    check.same_device("scalars", s, scalars[0]);
  }
  const Device device = scalars.empty() ? Context::current().device : scalars[0].device();
  Tensor y = Tensor::empty({}, DType::f32, device);
  if (const Tensor& counted = divisor.counted(); counted.defined()) {
    check.dtype("divisor", counted, DType::f32);
    check.shape("divisor", counted, {1}, "one number");
    check.same_device("divisor", counted, y);
  }
  MIXPL_DISPATCH(device, scaled_sum_forward, scalars, divisor, scale, y);
  record(y, scalars, [=, count = scalars.size()](const Tensor& dy) {
    Tensor dterm = Tensor::empty_like(dy);
    MIXPL_DISPATCH(device, scaled_sum_backward, dy, divisor, scale, dterm);
    return Gradients(count, dterm);
  });
  return y;
}

Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale) {
  return scaled_sum(scalars, Divisor(1.0f), scale);
}

namespace {
// Inputs: the scalars, then the divisor where { divided } says that there is one; else { divisor }.
const bool registered =
    register_op("scaledSum", [](const std::vector<Tensor>& in, const Options& o) {
      const auto scale = static_cast<float>(o.number("scale", 1));
      if (!o.boolean("divided", false)) {
        const Divisor divisor(static_cast<float>(o.number("divisor", 1)));
        return std::vector<Tensor>{scaled_sum(in, divisor, scale)};
      }
      if (in.empty()) throw ShapeError("scaledSum: needs a divisor, got no tensor");
      return std::vector<Tensor>{scaled_sum({in.begin(), in.end() - 1}, in.back(), scale)};
    });
}  // namespace

}  // namespace mixpl
