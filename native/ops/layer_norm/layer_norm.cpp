#include "ops/layer_norm/layer_norm.h"

#include "autograd/tape.h"
#include "core/check.h"
#include "core/launch.h"
#include "core/trace.h"
#include "ops/registry.h"

namespace mixpl {
namespace {

void check_inputs(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps,
                  const Tensor& residual) {
  const Check check("layerNorm");
  check.floating("x", x);
  if (x.rank() < 1)
    throw ShapeError(str("layerNorm: x must have at least one axis, got ", x.shape()));
  for (const auto& [name, parameter] : {std::pair{"gamma", gamma}, std::pair{"beta", beta}}) {
    check.dtype(name, parameter, DType::f32);
    check.shape(name, parameter, {x.size(-1)}, "the last axis of x");
    check.same_device(name, parameter, x);
  }
  if (!(eps > 0 && std::isfinite(eps)))
    throw RangeError(str("layerNorm: eps must be > 0, got ", eps));
  if (residual.defined()) {
    check.dtype("residual", residual, x.dtype());
    check.shape("residual", residual, x.shape(), "the shape of x");
    check.same_device("residual", residual, x);
  }
}

Gradients gradients_of(const LayerNormForward& forward, const Tensor& dy) {
  const Tensor &x = forward.x, &residual = forward.residual;
  LayerNormBackward back;
  back.forward = forward;
  if (x.requires_grad() || residual.requires_grad())
    back.dx = dy.unique() ? dy : Tensor::empty_like(x);
  back.dy = dy;
  if (forward.gamma.requires_grad() || forward.beta.requires_grad()) {
    back.dgamma = Tensor::zeros(forward.gamma.shape(), DType::f32, x.device());
    back.dbeta = Tensor::zeros(forward.beta.shape(), DType::f32, x.device());
  }
  if (x.numel()) MIXPL_DISPATCH(x.device(), layer_norm_backward, back);
  return {back.dx, back.dgamma, back.dbeta, back.dx};
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps,
                  const Tensor& residual) {
  check_inputs(x, gamma, beta, eps, residual);
  const Shape rows{drop_last(x.shape()).numel()};
  LayerNormForward forward{x, residual, gamma, beta, eps, {}, {}};
  forward.mean = Tensor::empty(rows, DType::f32, x.device());
  forward.rstd = Tensor::empty(rows, DType::f32, x.device());
  Tensor y = Tensor::empty_like(x);
  if (x.numel()) MIXPL_DISPATCH(x.device(), layer_norm_forward, forward, y);
  record(y, {x, gamma, beta, residual}, [forward](Tensor dy) { return gradients_of(forward, dy); });
  if (is_traced()) note("layerNorm", {x, gamma, beta, residual}, {y}, {{"eps", eps}});
  return y;
}

namespace {
// Inputs: x, gamma, beta[, residual].
const bool registered =
    register_op("layerNorm", [](const std::vector<Tensor>& in, const Options& o) {
      const auto eps = static_cast<float>(o.number("eps", 1e-5));
      if (in.size() != 3 && in.size() != 4)
        throw ShapeError(str("layerNorm: needs 3 or 4 tensors, got ", in.size()));
      return std::vector<Tensor>{
          layer_norm(in[0], in[1], in[2], eps, in.size() == 4 ? in[3] : Tensor())};
    });
}  // namespace

}  // namespace mixpl
