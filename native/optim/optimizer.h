// Multi-tensor optimizers: one parallel pass, or one launch, over all parameters.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/options.h"
#include "core/tensor.h"
#include "optim/gradient_norm.h"

namespace mixpl {

/// One tensor that an optimizer trains.
struct OptimizerTarget {
  std::string name;
  Tensor value;  // f32
  float lr_factor = 1;
  float weight_decay = 0;
};

struct StepReport {
  double norm = 0;            // of all gradients, before clipping
  std::vector<float> losses;  // values of those that came with the step
  bool taken = false;         // false: norm or a loss is not finite, and nothing was changed
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// Updates every target from its grad(); targets without one are left alone, state included.
  /// All gradients are multiplied first so that their norm becomes at most `clip_norm`.
  /// @param losses f32 scalars on the targets' device that the gradients are of: a GPU is waited
  ///               for once, for the norm and for them
  /// @param follow gives a GPU what comes after the update and before that wait; the tensor is the
  ///               step's Clip, which says there whether it is taken
  StepReport step(double lr, const std::vector<Tensor>& losses = {},
                  const std::function<void(const Tensor& clip)>& follow = {});
  /// Tensors that a checkpoint needs, by name ("optimizer." + ...); write into them to restore.
  virtual std::vector<std::pair<std::string, Tensor>> state() = 0;
  /// Largest L2 norm of all gradients together; 0: no clipping.
  double clip_norm = 0;

 protected:
  /// @param moments how many state tensors of its own shape every target has: 0, 1 or 2
  Optimizer(std::vector<OptimizerTarget> targets, int moments);
  /// Starts the update of table_ by what clip_ says, if it is usable; on a GPU it does not wait.
  virtual void update(double lr) = 0;
  /// A target took its step.
  virtual void count_step(size_t target) {}

  bool has_gradient(size_t target) const { return targets_[target].value.grad().defined(); }
  /// What this optimizer keeps beside the moments, one number a target: on the host, which alone
  /// reads it.
  Tensor counters() const {
    return Tensor::zeros({static_cast<int64_t>(targets_.size())}, DType::f32);
  }

  std::vector<OptimizerTarget> targets_;
  std::vector<Tensor> moments_[2];
  UpdateTable table_;
  Tensor clip_;
};

/// { type: 'sgd', momentum = 0.9, dampening = 0, nesterov = false } or
/// { type: 'adamw', betas = [0.9, 0.999], eps = 1e-8 }, both with clipNorm = 0; weight decay comes
/// with the targets, see parameter_groups.h.
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

}  // namespace mixpl
