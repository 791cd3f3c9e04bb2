#include "ops/add_product/add_product.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

Tensor product_of(const Tensor& a, const Tensor& b) {
  Tensor y = Tensor::empty_like(a);
  MIXPL_DISPATCH(a.device(), product, a, b, y);
  return y;
}

}  // namespace

Tensor add_product(const Tensor& x, const Tensor& a, const Tensor& b) {
  const Check check("addProduct");
  check.floating("x", x);
  for (const auto& [name, factor] : {std::pair{"a", a}, std::pair{"b", b}}) {
    check.dtype(name, factor, x.dtype());
    check.shape(name, factor, x.shape(), "the shape of x");
    check.same_device(name, factor, x);
  }
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), add_product, x, a, b, y);
  record(y, {x, a, b}, [x, a, b](const Tensor& dy) {
    Gradients grads(3);
    if (x.requires_grad()) grads[0] = dy;
    if (a.requires_grad()) grads[1] = product_of(dy, b);
    if (b.requires_grad()) grads[2] = product_of(dy, a);
    return grads;
  });
  if (is_traced()) note("addProduct", {x, a, b}, {y});
  return y;
}

namespace {
const bool registered =
    register_op("addProduct", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 3) throw ShapeError(str("addProduct: needs 3 tensors, got ", in.size()));
      return std::vector<Tensor>{add_product(in[0], in[1], in[2])};
    });
}  // namespace

}  // namespace mixpl
