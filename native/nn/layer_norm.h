// Layer normalisation with its parameters.
#pragma once

#include <string>

#include "nn/parameters.h"
#include "ops/layer_norm/layer_norm.h"

namespace mixpl {

/// Normalises the last axis of x, or of x + residual. Parameters: <name>.weight [channels], 1 at
/// first, and <name>.bias [channels], 0.
class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(const Scope& scope, const std::string& name, int64_t channels, float eps = 1e-5f)
      : eps_(eps) {
    const Scope at = scope.child(name);
    gamma_ = at.weight("weight", {channels}, init::constant(1), true);
    beta_ = at.weight("bias", {channels}, init::constant(0), true);
  }

  /// x [..., channels] -> as x; residual as x, or undefined
  Tensor operator()(const Tensor& x, const Tensor& residual = {}) const {
    return layer_norm(x, gamma_, beta_, eps_, residual);
  }

 private:
  Tensor gamma_, beta_;
  float eps_ = 1e-5f;
};

}  // namespace mixpl
