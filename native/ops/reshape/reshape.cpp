#include "ops/reshape/reshape.h"

#include "autograd/tape.h"
#include "core/check.h"

namespace mixpl {

Tensor reshape(const Tensor& x, const Shape& shape) {
  Check("reshape").defined("x", x);
  if (shape.numel() != x.numel())
    throw ShapeError(
        str("reshape: shape must hold ", x.numel(), " numbers, as x does, got ", shape));
  Tensor y = x.alias(shape);
  record(y, {x}, [from = x.shape()](const Tensor& dy) { return Gradients{dy.alias(from)}; });
  return y;
}

}  // namespace mixpl
