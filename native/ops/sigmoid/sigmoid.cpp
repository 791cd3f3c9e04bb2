#include "ops/sigmoid/sigmoid.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor sigmoid(const Tensor& x) {
  const Check check("sigmoid");
  check.floating("x", x);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), sigmoid_forward, x, y);
  record(y, {x}, [x](const Tensor& dy) {
    Tensor dx = Tensor::empty_like(x);
    MIXPL_DISPATCH(x.device(), sigmoid_backward, x, dy, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("sigmoid", {x}, {y});
  return y;
}

namespace {
const bool registered = register_op("sigmoid", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 1) throw ShapeError(str("sigmoid: needs 1 tensor, got ", in.size()));
  return std::vector<Tensor>{sigmoid(in[0])};
});
}  // namespace

}  // namespace mixpl
