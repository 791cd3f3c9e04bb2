#include "ops/batched_matmul/batched_matmul.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

Tensor product(const BatchedFactor& left, const BatchedFactor& right) {
  const Tensor& any = left.matrices;
  const Shape shape{any.size(0), left.rows(), right.columns()};
  if (shape.numel() == 0 || left.columns() == 0)
    return Tensor::zeros(shape, any.dtype(), any.device());
  Tensor y = Tensor::empty(shape, any.dtype(), any.device());
  MIXPL_DISPATCH(any.device(), batched_product, left, right, y);
  return y;
}

}  // namespace

Tensor batched_matmul(const Tensor& a, const Tensor& b) {
  const Check check("batchedMatmul");
  check.floating("a", a);
  check.rank("a", a, 3, "B, M, K");
  check.dtype("b", b, a.dtype());
  check.rank("b", b, 3, "B, K, N");
  check.size("b", b, 0, a.size(0), "batches of a");
  check.size("b", b, 1, a.size(2), "the last axis of a");
  check.same_device("b", b, a);
  Tensor y = product({a}, {b});
  record(y, {a, b}, [=](const Tensor& dy) {
    Gradients grads(2);
    if (a.requires_grad()) grads[0] = product({dy}, {b, true});
    if (b.requires_grad()) grads[1] = product({a, true}, {dy});
    return grads;
  });
  if (is_traced()) note("batchedMatmul", {a, b}, {y});
  return y;
}

namespace {
const bool registered =
    register_op("batchedMatmul", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 2) throw ShapeError(str("batchedMatmul: needs 2 tensors, got ", in.size()));
      return std::vector<Tensor>{batched_matmul(in[0], in[1])};
    });
}  // namespace

}  // namespace mixpl
