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
         bool relu = false)
      : relu_(relu) {
    const Scope at = scope.child(name);
    weight_ = at.weight("weight", {out, in}, init);
    bias_ = at.weight("bias", {out}, init::constant(0));
  }

  Tensor operator()(const Tensor& x) const { return linear(x, weight_, bias_, {relu_}); }

 private:
  Tensor weight_, bias_;
  bool relu_ = false;
};

}  // namespace mixpl
