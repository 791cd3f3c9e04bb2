#include "ops/scaled_exp/scaled_exp.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor scaled_exp(const Tensor& x, const Tensor& scale) {
  const Check check("scaledExp");
  check.floating("x", x);
  check.dtype("scale", scale, DType::f32);
  check.shape("scale", scale, {}, "a scalar");
  check.same_device("scale", scale, x);
  Tensor y = Tensor::empty(x.shape(), DType::f32, x.device());
  MIXPL_DISPATCH(x.device(), scaled_exp_forward, x, scale, y);
  record(y, {x, scale}, [x, scale](const Tensor& dy) {
    Gradients grads(2);
    if (x.requires_grad()) grads[0] = Tensor::empty_like(x);
    if (scale.requires_grad()) grads[1] = Tensor::empty_like(scale);
    MIXPL_DISPATCH(x.device(), scaled_exp_backward, dy, x, scale, grads[0], grads[1]);
    return grads;
  });
  if (is_traced()) note("scaledExp", {x, scale}, {y});
  return y;
}

namespace {
const bool registered = register_op("scaledExp", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 2) throw ShapeError(str("scaledExp: needs 2 tensors, got ", in.size()));
  return std::vector<Tensor>{scaled_exp(in[0], in[1])};
});
}  // namespace

}  // namespace mixpl
