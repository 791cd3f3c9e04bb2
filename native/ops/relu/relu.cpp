#include "ops/relu/relu.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/conv2d/conv2d.h"
#include "ops/registry.h"

namespace mixpl {

Tensor relu(const Tensor& x) {
  const Check check("relu");
  check.floating("x", x);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), relu_forward, x, y);
  record(y, {x}, [mask = y.detach()](const Tensor& dy) {
    Tensor dx = dy.unique() ? dy : Tensor::empty_like(dy), none;
    MIXPL_DISPATCH(dy.device(), mask_and_column_sum, mask, dy, dx, none);
    return Gradients{dx};
  });
  return y;
}

namespace {
const bool registered = register_op("relu", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 1) throw ShapeError(str("relu: needs 1 tensor, got ", in.size()));
  return std::vector<Tensor>{relu(in[0])};
});
}  // namespace

}  // namespace mixpl
