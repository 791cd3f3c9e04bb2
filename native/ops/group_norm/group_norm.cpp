#include "ops/group_norm/group_norm.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/conv2d/conv2d.h"
#include "ops/registry.h"

namespace mixpl {

Tensor group_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  const GroupNormOptions& options, const Tensor& residual) {
  const Check check("groupNorm");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  check.at_least("groups", options.groups, 1);
  check.at_least("eps", options.eps, 0);
  if (x.size(3) % options.groups)
    throw ShapeError(str("groupNorm: groups must divide the channels, got ", options.groups,
                         " groups and x ", x.shape()));
  check.dtype("gamma", gamma, DType::f32);
  check.shape("gamma", gamma, {x.size(3)}, "one a channel");
  check.dtype("beta", beta, DType::f32);
  check.shape("beta", beta, {x.size(3)}, "one a channel");
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, x.shape(), "x's shape");
  }
  Tensor y = Tensor::empty_like(x);
  Tensor stats = Tensor::empty({x.size(0), options.groups, 2}, DType::f32, x.device());
  MIXPL_DISPATCH(x.device(), group_norm_forward, x, gamma, beta, residual, options, y, stats);
  record(y, {x, gamma, beta, residual},
         [=, mask = options.relu ? y.detach() : Tensor()](Tensor dy) {
           Gradients grads(4);
           if (mask.defined()) {
             Tensor masked = dy.unique() ? dy : Tensor::empty_like(dy), none;
             MIXPL_DISPATCH(x.device(), mask_and_column_sum, mask, dy, masked, none);
             dy = masked;
           }
           if (residual.requires_grad()) grads[3] = dy;
           grads[0] = Tensor::empty_like(x);
           grads[1] = Tensor::empty_like(gamma);
           grads[2] = Tensor::empty_like(beta);
           MIXPL_DISPATCH(x.device(), group_norm_backward, dy, x, gamma, stats, options, grads[0],
                          grads[1], grads[2]);
           return grads;
         });
  return y;
}

namespace {
// Inputs: x, gamma, beta, then residual if {residual: true}.
const bool registered = register_op("groupNorm", [](const std::vector<Tensor>& in,
                                                    const Options& o) {
  GroupNormOptions options;
  options.groups = static_cast<int>(o.integer("groups", options.groups));
  options.eps = static_cast<float>(o.number("eps", options.eps));
  options.relu = o.boolean("relu", false);
  const bool residual = o.boolean("residual", false);
  if (in.size() != size_t{3} + residual)
    throw ShapeError(str("groupNorm: needs ", 3 + residual, " tensors, got ", in.size()));
  return std::vector<Tensor>{group_norm(in[0], in[1], in[2], options, residual ? in[3] : Tensor())};
});
}  // namespace

}  // namespace mixpl
