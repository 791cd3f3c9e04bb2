#include "ops/learned_scale/learned_scale.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor learned_scale(const Tensor& x, const Tensor& scale) {
  const Check check("learnedScale");
  check.floating("x", x);
  check.dtype("scale", scale, DType::f32);
  check.shape("scale", scale, {}, "a scalar");
  check.same_device("scale", scale, x);

  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), learned_scale_forward, x, scale, y);
  record(y, {x, scale}, [x, scale](const Tensor& dy) {
    Tensor dx = Tensor::empty_like(x), dscale = Tensor::empty_like(scale);
    MIXPL_DISPATCH(x.device(), learned_scale_backward, dy, x, scale, dx, dscale);
    return Gradients{dx, dscale};
  });
  if (is_traced()) note("learnedScale", {x, scale}, {y});
  return y;
}

namespace {
const bool registered =
    register_op("learnedScale", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("learnedScale: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{learned_scale(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
