#include "ops/group_norm/group_norm.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/trace.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/registry.h"

namespace mixpl {

Tensor group_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                  const GroupNormOptions& options, const Tensor& residual) {
  const Check check("groupNorm");
  check.floating("x", x);
  if (x.rank() < 2)
    throw ShapeError(str("groupNorm: x must have 2 or more axes (N ... C), got ", x.shape()));
  const int64_t channels = x.size(-1);
  check.at_least("groups", options.groups, 1);
  if (channels % options.groups != 0)
    throw ShapeError(str("groupNorm: groups must be a divisor of ", channels,
                         " (the channels of x), got ", options.groups));
  check.at_least("eps", options.eps, 0);
  for (const auto& [name, parameter] : {std::pair{"gamma", gamma}, std::pair{"beta", beta}}) {
    check.dtype(name, parameter, DType::f32);
    check.shape(name, parameter, {channels}, "the channels of x");
    check.same_device(name, parameter, x);
  }
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, x.shape(), "the shape of x");
    check.same_device("residual", residual, x);
  }

  NormForward forward;
  const int64_t images = x.size(0);
  const int64_t row = images * channels;
  forward.view = {images, row ? x.numel() / row : 0, channels, options.groups};
  forward.x = x;
  forward.gamma = gamma;
  forward.beta = beta;
  forward.residual = residual;
  forward.relu = options.relu;
  Tensor y = Tensor::empty_like(x);
  forward.mean = Tensor::zeros({forward.view.stats()}, DType::f32, x.device());
  forward.rstd = Tensor::zeros({forward.view.stats()}, DType::f32, x.device());
  if (x.numel())
    MIXPL_DISPATCH(x.device(), norm_by_image, forward, options.eps, forward.mean, forward.rstd, y);
  record_norm(forward, y, false);
  if (is_traced())
    note("groupNorm", {x, gamma, beta, residual}, {y},
         {{"groups", options.groups}, {"eps", options.eps}, {"relu", options.relu}});
  return y;
}

namespace {
// Inputs: x, gamma, beta[, residual].
const bool registered =
    register_op("groupNorm", [](const std::vector<Tensor>& inputs, const Options& json) {
      GroupNormOptions options;
      options.groups = static_cast<int>(json.integer("groups", options.groups));
      options.eps = static_cast<float>(json.number("eps", options.eps));
      options.relu = json.boolean("relu", options.relu);
      if (inputs.size() != 3 && inputs.size() != 4)
        throw ShapeError(str("groupNorm: needs 3 or 4 tensors, got ", inputs.size()));
      return std::vector<Tensor>{group_norm(inputs[0], inputs[1], inputs[2], options,
                                            inputs.size() == 4 ? inputs[3] : Tensor())};
    });
}  // namespace

}  // namespace mixpl
