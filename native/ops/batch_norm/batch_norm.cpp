#include "ops/batch_norm/batch_norm.h"

#include <cmath>

#include "autograd/tape.h"
#include "core/check.h"
#include "core/context.h"
#include "core/launch.h"
#include "ops/conv2d/conv2d.h"
#include "ops/registry.h"

namespace mixpl {

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, Tensor& running_mean,
                  Tensor& running_var, const BatchNormOptions& options, const Tensor& residual) {
  const Check check("batchNorm");
  check.floating("x", x);
  check.rank("x", x, 4, "N, H, W, C");
  const int64_t c = x.size(3);
  for (const auto& [name, t] :
       {std::pair{"gamma", &gamma}, std::pair{"beta", &beta},
        std::pair{"runningMean", static_cast<const Tensor*>(&running_mean)},
        std::pair{"runningVar", static_cast<const Tensor*>(&running_var)}}) {
    check.dtype(name, *t, DType::f32);
    check.shape(name, *t, {c}, "one a channel");
  }
  check.at_least("eps", options.eps, 0);
  check.in_range("momentum", options.momentum, 0, 1);
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, x.shape(), "x's shape");
  }
  const int64_t count = c ? x.numel() / c : 0;
  const bool live = Context::current().training && count > 0;
  Tensor mean = running_mean.clone(), variance = running_var.clone();
  if (live) {
    MIXPL_DISPATCH(x.device(), channel_statistics, x, mean, variance);
    float *rm = running_mean.data<float>(), *rv = running_var.data<float>();
    const float unbias = count > 1 ? float(count) / float(count - 1) : 1.0f, m = options.momentum;
    for (int64_t k = 0; k < c; ++k) {
      rm[k] += m * (mean.data<float>()[k] - rm[k]);
      rv[k] += m * (variance.data<float>()[k] * unbias - rv[k]);
    }
    running_mean.touch();
    running_var.touch();
  }
  Tensor inv = Tensor::empty({c}, DType::f32), scale = Tensor::empty({c}, DType::f32),
         shift = Tensor::empty({c}, DType::f32);
  for (int64_t k = 0; k < c; ++k) {
    inv.data<float>()[k] = 1.0f / std::sqrt(variance.data<float>()[k] + options.eps);
    scale.data<float>()[k] = gamma.data<float>()[k] * inv.data<float>()[k];
    shift.data<float>()[k] = beta.data<float>()[k] - mean.data<float>()[k] * scale.data<float>()[k];
  }
  Tensor y = Tensor::empty_like(x);
  MIXPL_DISPATCH(x.device(), channel_affine, x, scale, shift, residual, options.relu, y);
  record(
      y, {x, gamma, beta, residual}, [=, mask = options.relu ? y.detach() : Tensor()](Tensor dy) {
        Gradients grads(4);
        if (mask.defined()) {
          Tensor masked = dy.unique() ? dy : Tensor::empty_like(dy), none;
          MIXPL_DISPATCH(x.device(), mask_and_column_sum, mask, dy, masked, none);
          dy = masked;
        }
        if (residual.requires_grad()) grads[3] = dy;
        Tensor sum = Tensor::empty({c}, DType::f32), product = Tensor::empty({c}, DType::f32);
        MIXPL_DISPATCH(x.device(), channel_moments, dy, x, mean, sum, product);
        Tensor slope = Tensor::zeros({c}, DType::f32), offset = Tensor::zeros({c}, DType::f32);
        Tensor dgamma = Tensor::empty({c}, DType::f32);
        for (int64_t k = 0; k < c; ++k) {
          const float r = inv.data<float>()[k], p = product.data<float>()[k];
          dgamma.data<float>()[k] = p * r;
          // dx = scale (dy - mean(dy) - h mean(dy h)), h = (x - mean) r; fixed statistics: scale dy
          if (!live) continue;
          const float s = scale.data<float>()[k];
          slope.data<float>()[k] = -s * r * r * p / float(count);
          offset.data<float>()[k] = -s * sum.data<float>()[k] / float(count) -
                                    slope.data<float>()[k] * mean.data<float>()[k];
        }
        grads[0] = Tensor::empty_like(x);
        MIXPL_DISPATCH(x.device(), channel_affine_backward, dy, x, scale, slope, offset, grads[0]);
        grads[1] = dgamma;
        grads[2] = sum;
        return grads;
      });
  return y;
}

namespace {
// Inputs: x, gamma, beta, runningMean, runningVar, then residual if {residual: true}. Outputs: y
// and the running statistics after the call.
const bool registered =
    register_op("batchNorm", [](const std::vector<Tensor>& in, const Options& o) {
      BatchNormOptions options;
      options.eps = static_cast<float>(o.number("eps", options.eps));
      options.momentum = static_cast<float>(o.number("momentum", options.momentum));
      options.relu = o.boolean("relu", false);
      const bool residual = o.boolean("residual", false);
      if (in.size() != size_t{5} + residual)
        throw ShapeError(str("batchNorm: needs ", 5 + residual, " tensors, got ", in.size()));
      Tensor mean = in[3].clone(), variance = in[4].clone();
      const Tensor y =
          batch_norm(in[0], in[1], in[2], mean, variance, options, residual ? in[5] : Tensor());
      return std::vector<Tensor>{y, mean, variance};
    });
}  // namespace

}  // namespace mixpl
