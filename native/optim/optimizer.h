// Multi-tensor optimizers: one parallel pass over all parameters.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/options.h"
#include "core/tensor.h"

namespace mixpl {

/// One tensor that an optimizer trains.
struct OptimizerTarget {
  std::string name;
  Tensor value;  // f32
  float lr_factor = 1;
  float weight_decay = 0;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Updates every target from its grad(); targets without one are left alone, state included.
  /// `scale` multiplies every gradient first (clipping).
  virtual void step(double lr, float scale) = 0;
  /// Tensors that a checkpoint needs, by name ("optimizer." + ...); write into them to restore.
  virtual std::vector<std::pair<std::string, Tensor>> state() = 0;
  /// Largest L2 norm of all gradients together; 0: no clipping.
  double clip_norm = 0;
};

/// { type: 'sgd', momentum = 0.9, dampening = 0, nesterov = false } or
/// { type: 'adamw', betas = [0.9, 0.999], eps = 1e-8 }, both with clipNorm = 0; weight decay comes
/// with the targets.
/// @throws ConfigError, DTypeError (a target that is not f32)
std::unique_ptr<Optimizer> create_optimizer(const Options& options,
                                            std::vector<OptimizerTarget> targets);

struct SgdOptions {
  double momentum = 0.9, dampening = 0;
  bool nesterov = false;
};
/// v = m v + (1 - dampening) d with d = scale g + wd w, the first v is d; w -= lr v, or with
/// nesterov w -= lr (d + m v). Source: torch.optim.SGD.
std::unique_ptr<Optimizer> make_sgd(std::vector<OptimizerTarget> targets, SgdOptions options);

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};
/// Loshchilov and Hutter 2019: w decays by lr wd w, then takes Adam's step; every target counts its
/// own steps. Source: torch.optim.AdamW.
std::unique_ptr<Optimizer> make_adamw(std::vector<OptimizerTarget> targets, AdamWOptions options);

/// L2 norm of all gradients (f32) together; infinity or NaN when a gradient holds one. Summed in
/// double in a fixed order: the same bits for any number of threads.
double gradient_norm(const std::vector<Tensor>& gradients);
/// What gradients of norm `norm` are multiplied with so that it becomes at most `clip_norm` (0: no
/// clipping). Never enlarges. Source: torch.nn.utils.clip_grad_norm_.
float clip_scale(double norm, double clip_norm);

}  // namespace mixpl
