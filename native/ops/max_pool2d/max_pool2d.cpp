#include "ops/max_pool2d/max_pool2d.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {

Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  const Check check("maxPool2d");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  check.in_range("kernel", options.kernel, 1, 15);  // the winner's position fits a byte
  check.at_least("stride", options.stride, 1);
  check.in_range("padding", options.padding, 0, options.kernel / 2);
  const auto out = [&](int64_t size) {
    const int64_t reach = size + 2 * options.padding - options.kernel;
    return reach < 0 ? 0 : reach / options.stride + 1;
  };
  const Shape shape{x.size(0), out(x.size(1)), out(x.size(2)), x.size(3)};
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  Tensor winner = recording({x}) ? Tensor::empty(shape, DType::u8, x.device()) : Tensor();
  MIXPL_DISPATCH(x.device(), max_pool2d_forward, x, options, y, winner);
  record(y, {x}, [=, shape = x.shape(), dtype = x.dtype(), device = x.device()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dtype, device);
    MIXPL_DISPATCH(device, max_pool2d_backward, dy, winner, options, dx);
    return Gradients{dx};
  });
  if (is_traced())
    note("maxPool2d", {x}, {y},
         {{"kernel", options.kernel}, {"stride", options.stride}, {"padding", options.padding}});
  return y;
}

namespace {
const bool registered =
    register_op("maxPool2d", [](const std::vector<Tensor>& in, const Options& o) {
      if (in.size() != 1) throw ShapeError(str("maxPool2d: needs 1 tensor, got ", in.size()));
      Pool2dOptions options;
      options.kernel = static_cast<int>(o.integer("kernel", options.kernel));
      options.stride = static_cast<int>(o.integer("stride", options.stride));
      options.padding = static_cast<int>(o.integer("padding", options.padding));
      return std::vector<Tensor>{max_pool2d(in[0], options)};
    });
}  // namespace

}  // namespace mixpl
