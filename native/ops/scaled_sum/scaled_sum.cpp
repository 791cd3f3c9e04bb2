#include "ops/scaled_sum/scaled_sum.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/registry.h"
#include "ops/scaled_sum/scaled_sum_math.h"

namespace mixpl {
namespace {

Tensor sum_of(const std::vector<Tensor>& scalars, const Tensor& divisor, float scale) {
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
  if (divisor.defined()) check.same_device("divisor", divisor, y);
  MIXPL_DISPATCH(device, scaled_sum_forward, scalars, divisor, scale, y);
  record(y, scalars, [=, count = scalars.size()](const Tensor& dy) {
    Tensor dterm = Tensor::empty_like(dy);
    MIXPL_DISPATCH(device, scaled_sum_backward, dy, divisor, scale, dterm);
    return Gradients(count, dterm);
  });
  return y;
}

}  // namespace

Tensor scaled_sum(const std::vector<Tensor>& scalars, float scale) {
  return sum_of(scalars, {}, scale);
}

Tensor scaled_sum(const std::vector<Tensor>& scalars, const Tensor& divisor, float scale) {
  const Check check("scaledSum");
  check.dtype("divisor", divisor, DType::f32);
  check.shape("divisor", divisor, {1}, "one number");
  return sum_of(scalars, divisor, scale);
}

namespace {
// Inputs: the scalars, then the divisor where { divided } says that there is one.
const bool registered =
    register_op("scaledSum", [](const std::vector<Tensor>& in, const Options& o) {
      const auto scale = static_cast<float>(o.number("scale", 1));
      if (!o.boolean("divided", false)) return std::vector<Tensor>{scaled_sum(in, scale)};
      if (in.empty()) throw ShapeError("scaledSum: needs a divisor, got no tensor");
      return std::vector<Tensor>{scaled_sum({in.begin(), in.end() - 1}, in.back(), scale)};
    });
}  // namespace

}  // namespace mixpl
