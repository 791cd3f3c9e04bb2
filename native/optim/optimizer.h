// Multi-tensor optimizers: one parallel pass over all parameters.
#pragma once

#include <memory>
#include <string>
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
  /// Updates every target from its grad(); targets without one are left alone. `scale` multiplies
  /// every gradient first (clipping).
  virtual void step(double lr, float scale) = 0;
  /// Tensors that a checkpoint needs, by name.
  virtual std::vector<std::pair<std::string, Tensor>> state() = 0;
  /// Largest L2 norm of all gradients together; 0: no clipping.
  double clip_norm = 0;
};

/// { type: 'sgd' | 'adamw', momentum, betas, eps, clipNorm }; per-target decay comes with the
/// targets.
/// @throws ConfigError
std::unique_ptr<Optimizer> create_optimizer(const Options& options,
                                            std::vector<OptimizerTarget> targets);

/// L2 norm of all gradients together; infinity or NaN when a gradient holds one. Fixed order of
/// summation: the same bits for any number of threads.
double gradient_norm(const std::vector<Tensor>& gradients);

/// teacher = (1 - momentum) teacher + momentum student, for all pairs; momentum 1 copies.
void ema_update(const std::vector<Tensor>& teacher, const std::vector<Tensor>& student,
                double momentum);

}  // namespace mixpl
