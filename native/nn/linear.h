// Fully connected layer with its parameters.
#pragma once

#include <string>

#include "nn/parameters.h"
#include "ops/linear/linear.h"

namespace mixpl {

/// x [..., in] -> [..., out]. Parameters: <name>.weight [out, in], <name>.bias [out].
class Linear {
 public:
  Linear() = default;
  Linear(const Scope& scope, const std::string& name, int64_t in, int64_t out, const Init& init,
         const LinearOptions& options = {}, const Init& bias = init::constant(0))
      : options_(options) {
    const Scope at = scope.child(name);
    weight_ = at.weight("weight", {out, in}, init);
    bias_ = at.weight("bias", {out}, bias);
  }

  Tensor operator()(const Tensor& x) const { return linear(x, weight_, bias_, options_); }

 private:
  Tensor weight_, bias_;
  LinearOptions options_;
};

}  // namespace mixpl
