#include "ops/linear/linear.h"

#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/conv2d/conv2d_gradients.h"
#include "ops/registry.h"

namespace mixpl {

// A 1x1 convolution over one row of pixels: the same kernels, packed weights and masks serve both.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const LinearOptions& options) {
  const Check check("linear");
  check.floating("x", x);
  if (x.rank() < 1) throw ShapeError(str("linear: x must have at least one axis, got ", x.shape()));
  check.dtype("weight", weight, DType::f32);
  check.rank("weight", weight, 2, "K, C");
  check.size("x", x, x.rank() - 1, weight.size(1), "the last axis of weight");
  check.same_device("weight", weight, x);
  if (bias.defined()) {
    check.dtype("bias", bias, DType::f32);
    check.shape("bias", bias, {weight.size(0)}, "one an output");
    check.same_device("bias", bias, x);
  }
  const int64_t k = weight.size(0), c = weight.size(1), rows = drop_last(x.shape()).numel();
  std::vector<int64_t> shape = x.shape().sizes();
  shape.back() = k;
  Conv2dOptions conv;
  conv.relu = options.relu;
  // Kept with the weight, so that what the kernels derive from it is kept too.
  const Tensor filters = weight.derived<Tensor>("filters", [&] {
    return weight.alias({k, 1, 1, c});
  });
  const Shape in{1, 1, rows, c}, out{1, 1, rows, k};

  Tensor y = Tensor::empty(Shape(std::move(shape)), x.dtype(), x.device());
  Tensor flat = y.alias(out);
  MIXPL_DISPATCH(x.device(), conv2d_forward, x.alias(in), filters, bias, Tensor(), conv, flat);
  flat = Tensor();
  record(y, {x, weight, bias, Tensor()},
         ConvGradients{x, weight, bias, Tensor(), in, out, filters, conv,
                       options.relu ? y.detach() : Tensor()});
  if (y.requires_grad()) forget_packed(filters);
  if (options.relu) mark_rectified(y);
  if (is_traced()) note("linear", {x, weight, bias}, {y}, {{"relu", options.relu}});
  return y;
}

namespace {
// Inputs: x, weight, then bias if {bias: true}.
const bool registered = register_op("linear", [](const std::vector<Tensor>& in, const Options& o) {
  LinearOptions options;
  options.relu = o.boolean("relu", false);
  const size_t wanted = 2 + o.boolean("bias", false);
  if (in.size() != wanted)
    throw ShapeError(str("linear: needs ", wanted, " tensors, got ", in.size()));
  return std::vector<Tensor>{linear(in[0], in[1], wanted > 2 ? in[2] : Tensor(), options)};
});
}  // namespace

}  // namespace mixpl
