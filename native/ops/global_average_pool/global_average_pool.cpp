#include "ops/global_average_pool/global_average_pool.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor global_average_pool(const Tensor& x) {
  const Check check("globalAveragePool");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  if (x.size(1) < 1 || x.size(2) < 1)
    throw ShapeError(str("globalAveragePool: x must have one pixel at least, got ", x.shape()));
  Tensor y = Tensor::empty({x.size(0), 1, 1, x.size(3)}, x.dtype(), x.device());
  MIXPL_DISPATCH(x.device(), global_average_pool_forward, x, y);
  record(y, {x}, [shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    MIXPL_DISPATCH(dy.device(), global_average_pool_backward, dy, dx);
    return Gradients{dx};
  });
  if (is_traced()) note("globalAveragePool", {x}, {y});
  return y;
}

namespace {
const bool registered =
    register_op("globalAveragePool", [](const std::vector<Tensor>& in, const Options&) {
      if (in.size() != 1)
        throw ShapeError(str("globalAveragePool: needs 1 tensor, got ", in.size()));
      return std::vector<Tensor>{global_average_pool(in[0])};
    });
}  // namespace

}  // namespace mixpl
