#include "ops/batch_norm/batch_norm.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "ops/channel_norm/channel_norm.h"
#include "ops/registry.h"

namespace mixpl {
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, const BatchNormOptions& options, const Tensor& residual,
                  const Tensor& owners) {
  const Check check("batchNorm");
  check.floating("x", x);
  if (x.rank() < 2)
    throw ShapeError(str("batchNorm: x must have 2 or more axes (N ... C), got ", x.shape()));
  const int64_t channels = x.size(-1);
  check.at_least("eps", options.eps, 0);
  check.in_range("momentum", options.momentum, 0, 1);
  for (const auto& [name, parameter] :
       {std::pair{"gamma", gamma}, std::pair{"beta", beta}, std::pair{"runningMean", running_mean},
        std::pair{"runningVar", running_var}}) {
    check.dtype(name, parameter, DType::f32);
    check.shape(name, parameter, {channels}, "the channels of x");
    check.same_device(name, parameter, x);
  }
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, x.shape(), "the shape of x");
    check.same_device("residual", residual, x);
  }
  if (owners.defined()) {
    check.dtype("owners", owners, DType::i32);
    check.shape("owners", owners, {x.size(0)}, "the rows of x");
    check.same_device("owners", owners, x);
    if (!x.device().is_cuda())
      throw DeviceError("batchNorm: owners must be undefined on the CPU, where no row is empty");
  }
  const bool training = Context::current().training;
  const int64_t count = channels ? x.numel() / channels : 0;
  if (training && count == 1)
    throw ShapeError(
        str("batchNorm: x must hold more than one value per channel (one value has no "
            "variance), got ",
            x.shape()));

  NormForward forward;
  forward.view = {1, count, channels, channels};
  forward.x = x;
  forward.gamma = gamma;
  forward.beta = beta;
  forward.residual = residual;
  forward.relu = options.relu;
  Tensor y = Tensor::empty_like(x);
  if (training && x.numel()) {
    forward.mean = Tensor::empty({channels}, DType::f32, x.device());
    forward.rstd = Tensor::empty({channels}, DType::f32, x.device());
    if (owners.defined()) {
      forward.owners = owners;
      forward.count = Tensor::empty({1}, DType::f32, x.device());
    }
    MIXPL_DISPATCH(x.device(), norm_moments, forward, forward.mean, forward.rstd);
    if (!Context::current().recomputing) {
      MIXPL_DISPATCH(x.device(), update_running, forward, options.momentum, running_mean,
                     running_var);
      running_mean.touch();
      running_var.touch();
    }
  } else {
    forward.mean = running_mean.clone();  // the running ones may move before the backward
    forward.rstd = running_var.clone();
  }
  MIXPL_DISPATCH(x.device(), norm_rstd, options.eps, forward.rstd);
  if (x.numel()) MIXPL_DISPATCH(x.device(), norm_forward, forward, y);
  record_norm(forward, y, !training);
  return y;
}

namespace {
// Inputs: x, gamma, beta, runningMean, runningVar[, residual]. Outputs: y and the running
// statistics after the call; the inputs stay as they are.
const bool registered =
    register_op("batchNorm", [](const std::vector<Tensor>& inputs, const Options& json) {
      BatchNormOptions options;
      options.eps = static_cast<float>(json.number("eps", options.eps));
      options.momentum = static_cast<float>(json.number("momentum", options.momentum));
      options.relu = json.boolean("relu", options.relu);
      if (inputs.size() != 5 && inputs.size() != 6)
        throw ShapeError(str("batchNorm: needs 5 or 6 tensors, got ", inputs.size()));
      Tensor mean = inputs[3].clone(), variance = inputs[4].clone();
      const Tensor y = batch_norm(inputs[0], inputs[1], inputs[2], mean, variance, options,
                                  inputs.size() == 6 ? inputs[5] : Tensor());
      return std::vector<Tensor>{y, mean, variance};
    });
}  // namespace

}  // namespace mixpl
