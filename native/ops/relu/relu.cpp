#include "ops/relu/relu.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
Tensor relu(const Tensor& x) {
  const Check check("relu");
  check.floating("x", x);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), relu_forward, x, y);
  record(y, {x}, [y = y.detach()](Tensor dout) {
    Tensor dx = dout.unique() ? dout : Tensor::empty_like(y);
    MIXPL_DISPATCH(y.device(), relu_backward, y, dout, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("relu", {x}, {y});
  return y;
}

namespace {
const bool registered = register_op("relu", [](const std::vector<Tensor>& inputs, const Options&) {
  if (inputs.size() != 1) throw ShapeError(str("relu: needs 1 tensor, got ", inputs.size()));
  return std::vector<Tensor>{relu(inputs[0])};
});
}  // namespace

}  // namespace mixpl
