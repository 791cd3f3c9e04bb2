#include "ops/channel_norm/channel_norm.h"

#include "autograd/tape.h"
#include "core/launch.h"

namespace mixpl {

void record_norm(const NormForward& forward, const Tensor& y, bool fixed_stats) {
  const bool relu_after_add = forward.relu && forward.residual.defined();
  record(y, {forward.x, forward.gamma, forward.beta, forward.residual},
         [forward, fixed_stats, kept = relu_after_add ? y.detach() : Tensor()](Tensor dout) {
           const Tensor &x = forward.x, &residual = forward.residual;
           NormBackward back;
           back.forward = forward;
           back.fixed_stats = fixed_stats;
           back.y = kept;
           const bool owned = dout.unique();
           back.dout = dout;
           Tensor dresidual;
           if (residual.requires_grad()) {
             // Without a ReLU between them, the residual's gradient is the output's.
             dresidual = !forward.relu || owned ? dout : Tensor::empty_like(dout);
             if (forward.relu) back.dresidual = dresidual;
           }
           if (x.requires_grad())
             back.dx = owned && !dresidual.defined() ? dout : Tensor::empty_like(x);
           const auto parameter_grad = [](const Tensor& p) {
             return p.requires_grad() ? Tensor::zeros(p.shape(), DType::f32, p.device()) : Tensor();
           };
           back.dgamma = parameter_grad(forward.gamma);
           back.dbeta = parameter_grad(forward.beta);
           if (x.numel()) MIXPL_DISPATCH(x.device(), norm_backward, back);
           return Gradients{back.dx, back.dgamma, back.dbeta, dresidual};
         });
}

}  // namespace mixpl
