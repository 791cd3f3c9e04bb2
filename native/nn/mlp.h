// Linear layers with a ReLU between each two.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "nn/linear.h"

namespace mixpl {

/// torch.nn.Linear's default bias: uniform in ±1 / sqrt(in).
inline Init uniform_bias(int64_t in) {
  return init::uniform(1.0f / std::sqrt(static_cast<float>(in)));
}

/// in -> hidden -> ... -> out, `layers` of them; names as mmdetection's MLP. Parameters:
/// <name>.layers.<i>.{weight, bias}; biases uniform as torch's.
class Mlp {
 public:
  Mlp() = default;
  /// @param weights how they are first filled
  /// @param still   the last layer's weights and biases are 0: at first the output is
  Mlp(const Scope& scope, const std::string& name, int64_t in, int64_t hidden, int64_t out,
      int layers, const Init& weights, bool still = false) {
    const Scope at = scope.child(name).child("layers");
    for (int i = 0; i < layers; ++i) {
      const bool last = i + 1 == layers, zero = last && still;
      const int64_t from = i == 0 ? in : hidden;
      layers_.emplace_back(at, std::to_string(i), from, last ? out : hidden,
                           zero ? init::constant(0) : weights, LinearOptions{!last},
                           zero ? init::constant(0) : uniform_bias(from));
    }
  }

  /// x [..., in] -> [..., out]
  Tensor operator()(const Tensor& x) const {
    Tensor y = x;
    for (const Linear& layer : layers_) y = layer(y);
    return y;
  }

 private:
  std::vector<Linear> layers_;
};

}  // namespace mixpl
