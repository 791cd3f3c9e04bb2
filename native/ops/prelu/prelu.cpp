#include "ops/prelu/prelu.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor prelu(const Tensor& x, const Tensor& slope) {
  const Check check("prelu");
  check.floating("x", x);
  check.dtype("slope", slope, DType::f32);
  check.shape("slope", slope, {1}, "one number for all channels");
  check.same_device("slope", slope, x);

  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), prelu_forward, x, slope, y);
  record(y, {x, slope}, [x, slope](const Tensor& dy) {
    Tensor dx, dslope;
    if (x.requires_grad()) dx = dy.unique() ? dy : Tensor::empty_like(x);
    if (slope.requires_grad()) dslope = Tensor::empty_like(slope);
    MIXPL_DISPATCH(x.device(), prelu_backward, x, slope, dy, dx, dslope);
    return Gradients{dx, dslope};
  });
  if (is_traced()) note("prelu", {x, slope}, {y});
  return y;
}

namespace {
const bool registered = register_op("prelu", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 2) throw ShapeError(str("prelu: needs 2 tensors, got ", in.size()));
  return std::vector<Tensor>{prelu(in[0], in[1])};
});
}  // namespace

}  // namespace mixpl
