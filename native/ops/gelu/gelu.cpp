#include "ops/gelu/gelu.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor gelu(const Tensor& x) {
  const Check check("gelu");
  check.floating("x", x);
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), gelu_forward, x, y);
  record(y, {x}, [x](const Tensor& dy) {
    Tensor dx = dy.unique() ? dy : Tensor::empty_like(x);
    MIXPL_DISPATCH(x.device(), gelu_backward, x, dy, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("gelu", {x}, {y});
  return y;
}

namespace {
const bool registered = register_op("gelu", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 1) throw ShapeError(str("gelu: needs 1 tensor, got ", in.size()));
  return std::vector<Tensor>{gelu(in[0])};
});
}  // namespace

}  // namespace mixpl
