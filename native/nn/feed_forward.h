// The feed-forward part of a transformer's layer.
#pragma once

#include <cstdint>
#include <string>

#include "nn/linear.h"
#include "ops/dropout/dropout.h"
#include "ops/gelu/gelu.h"
#include "ops/prelu/prelu.h"

namespace mixpl {

enum class Activation : uint8_t { relu, gelu, prelu };

/// linear -> activation -> linear, as mmdetection's FFN without its residual: the layer norm behind
/// it adds that. Parameters: <name>.layers.0.0.{weight, bias}, <name>.layers.1.{weight, bias};
/// by default Glorot's uniform weights, and zero biases (torch's biases are uniform in ±1 /
/// sqrt(in)). With a PReLU <name>.layers.0.1.weight [1], its slope, 0.25 at first.
class FeedForward {
 public:
  FeedForward() = default;
  FeedForward(const Scope& scope, const std::string& name, int64_t channels, int64_t hidden,
              Activation activation = Activation::relu,
              const Init& weights = init::xavier_uniform())
      : activation_(activation) {
    const Scope layers = scope.child(name).child("layers");
    // A ReLU is part of the product's kernel.
    inner_ =
        Linear(layers.child("0"), "0", channels, hidden, weights, {activation == Activation::relu});
    if (activation == Activation::prelu)
      slope_ = layers.child("0.1").weight("weight", {1}, init::constant(0.25f));
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
    if (activation_ == Activation::gelu) return gelu(hidden);
    return activation_ == Activation::prelu ? prelu(hidden, slope_) : hidden;
  }

  Linear inner_, outer_;
  Tensor slope_;
  Activation activation_ = Activation::relu;
};

}  // namespace mixpl
