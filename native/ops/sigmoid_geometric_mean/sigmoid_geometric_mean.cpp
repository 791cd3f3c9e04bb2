#include "ops/sigmoid_geometric_mean/sigmoid_geometric_mean.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor sigmoid_geometric_mean(const Tensor& x, const Tensor& y) {
  const Check check("sigmoidGeometricMean");
  check.floating("x", x);
  if (x.rank() < 1) throw ShapeError("sigmoidGeometricMean: x must have an axis, got a scalar");
  check.dtype("y", y, x.dtype());
  std::vector<int64_t> one = x.shape().sizes();
  one.back() = 1;
  check.shape("y", y, Shape(one), "x with a last axis of 1");
  check.same_device("y", y, x);
  Tensor z = Tensor::empty(x.shape(), DType::f32, x.device());
  MIXPL_DISPATCH(x.device(), sigmoid_geometric_mean_forward, x, y, z);
  record(z, {x, y}, [x, y](const Tensor& dz) {
    Gradients grads(2);
    if (x.requires_grad()) grads[0] = Tensor::empty_like(x);
    if (y.requires_grad()) grads[1] = Tensor::empty_like(y);
    MIXPL_DISPATCH(x.device(), sigmoid_geometric_mean_backward, dz, x, y, grads[0], grads[1]);
    return grads;
  });
  if (is_traced()) note("sigmoidGeometricMean", {x, y}, {z});
  return z;
}

namespace {
const bool registered =
    register_op("sigmoidGeometricMean", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2)
        throw ShapeError(str("sigmoidGeometricMean: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{sigmoid_geometric_mean(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
