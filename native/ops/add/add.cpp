#include "ops/add/add.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

bool ends_with(const Shape& whole, const Shape& end) {
  const auto &w = whole.sizes(), &e = end.sizes();
  return w.size() >= e.size() && std::equal(e.rbegin(), e.rend(), w.rbegin());
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Check check("add");
  check.floating("a", a);
  check.floating("b", b);
  if (!ends_with(a.shape(), b.shape()))
    throw ShapeError(
        str("add: b must be ", a.shape(), " or its last axes (the shape of a), got ", b.shape()));
  check.same_device("b", b, a);
  Tensor y = Tensor::empty_like(a);
  if (y.numel()) MIXPL_DISPATCH(a.device(), add_forward, a, b, y);
  record(y, {a, b}, [a, b](const Tensor& dy) {
    Gradients grads(2);
    if (a.requires_grad()) grads[0] = dy;
    if (!b.requires_grad()) return grads;
    if (b.numel() == dy.numel()) {
      const Tensor cast = dy.to(b.dtype());
      grads[1] = b.rank() == dy.rank() ? cast : cast.alias(b.shape());
    } else {
      grads[1] = Tensor::empty_like(b);
      MIXPL_DISPATCH(b.device(), add_backward, dy, grads[1]);
    }
    return grads;
  });
  if (is_traced()) note("add", {a, b}, {y});
  return y;
}

namespace {
const bool registered = register_op("add", [](const std::vector<Tensor>& in, const Options&) {
  if (in.size() != 2) throw ShapeError(str("add: needs 2 tensors, got ", in.size()));
  return std::vector<Tensor>{add(in[0], in[1])};
});
}  // namespace

}  // namespace mixpl
