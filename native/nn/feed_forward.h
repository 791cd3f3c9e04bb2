// The feed-forward part of a transformer's layer.
#pragma once

#include <cstdint>
#include <string>

#include "nn/linear.h"
#include "ops/dropout/dropout.h"
#include "ops/gelu/gelu.h"

namespace mixpl {

enum class Activation : uint8_t { relu, gelu };

/// linear -> activation -> linear, as mmdetection's FFN without its residual: the layer norm behind
/// it adds that. Parameters: <name>.layers.0.0.{weight, bias}, <name>.layers.1.{weight, bias};
/// by default Glorot's uniform weights, and zero biases (torch's biases are uniform in ±1 /
/// sqrt(in)).
class FeedForward {
 public:
  FeedForward() = default;
  FeedForward(const Scope& scope, const std::string& name, int64_t channels, int64_t hidden,
              Activation activation = Activation::relu,
              const Init& weights = init::xavier_uniform())
      : gelu_(activation == Activation::gelu) {
    const Scope layers = scope.child(name).child("layers");
    // A ReLU is part of the product's kernel.
    inner_ = Linear(layers.child("0"), "0", channels, hidden, weights, {!gelu_});
    outer_ = Linear(layers, "1", hidden, channels, weights);
  }

  /// x [..., channels] -> as x
  Tensor operator()(const Tensor& x) const { return outer_(activated(x)); }
  /// With dropout behind the activation and behind the second product, in training: draws from the
  /// stream of `random` and from the one after it. p in [0, 1)
  Tensor operator()(const Tensor& x, float p, const Philox& random) const {
    const Tensor hidden = dropout(activated(x), p, random);
    return dropout(outer_(hidden), p, Philox{random.seed, random.stream + 1});
  }

 private:
  Tensor activated(const Tensor& x) const {
    const Tensor hidden = inner_(x);
    return gelu_ ? gelu(hidden) : hidden;
  }

  Linear inner_, outer_;
  bool gelu_ = false;
};

}  // namespace mixpl
