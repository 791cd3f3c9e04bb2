// Dropout of a network: on while it trains, with a draw of its own at every place.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "ops/dropout/dropout.h"

namespace mixpl {

/// Draws come from the pass (Context::random) and the place's number, behind the streams that
/// samplers draw from.
class Dropout {
 public:
  Dropout() = default;
  /// @param p in [0, 1)
  /// @param place no two of a network share one, or one of those after it that they use; below 2^20
  Dropout(float p, uint64_t place) : p_(p), place_(place) {}

  /// Of this pass: 0 unless it trains.
  float p() const { return Context::current().training ? p_ : 0; }
  /// @param after how many places after its own
  Philox random(uint64_t after = 0) const {
    constexpr uint64_t kFirst = uint64_t{1} << 20;
    const Philox& pass = Context::current().random;
    return {pass.seed, pass.stream + kFirst + place_ + after};
  }
  Tensor operator()(const Tensor& x, uint64_t after = 0) const {
    return dropout(x, p(), random(after));
  }

 private:
  float p_ = 0;
  uint64_t place_ = 0;
};

}  // namespace mixpl
