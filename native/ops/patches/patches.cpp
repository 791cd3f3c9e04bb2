#include "ops/patches/patches.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor patches(const Tensor& x, int64_t size) {
  const Check check("patches");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  check.in_range("size", static_cast<double>(size), 1, 64);
  if (size == 1) return x;
  const auto along = [&](int axis) { return (x.size(axis) + size - 1) / size; };
  Tensor y = Tensor::empty({x.size(0), along(1), along(2), size * size * x.size(3)}, x.dtype(),
                           x.device());
  if (y.numel()) MIXPL_DISPATCH(x.device(), patches_forward, x, size, y);
  record(y, {x}, [size, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    if (dx.numel()) MIXPL_DISPATCH(dy.device(), patches_backward, dy, size, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("patches", {x}, {y}, {{"size", static_cast<double>(size)}});
  return y;
}

namespace {
const bool registered = register_op("patches", [](const std::vector<Tensor>& in, const Options& o) {
  if (in.size() != 1) throw ShapeError(str("patches: needs 1 tensor, got ", in.size()));
  return std::vector<Tensor>{patches(in[0], o.integer("size", 2))};
});
}  // namespace

}  // namespace mixpl
