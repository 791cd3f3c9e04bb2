// Stochastic gradient descent over a table of tensors: the arithmetic of both devices.
#pragma once

#include "optim/gradient_norm.h"

namespace mixpl {

enum class SgdKind : uint8_t { plain, momentum, nesterov };

/// Of one tensor in one step.
struct SgdFactors {
  float rate, decay;
  float fresh;  // what a gradient adds to the velocity: 1 - dampening
};

/// w and v (unless plain) after a step on the gradient g.
template <SgdKind kKind>
MIXPL_HD void sgd_element(float& w, float& v, float g, float scale, float momentum,
                          const SgdFactors& f) {
  const float d = scale * g + f.decay * w;
  if constexpr (kKind == SgdKind::plain) {
    w -= f.rate * d;
  } else if constexpr (kKind == SgdKind::nesterov) {
    v = momentum * v + d;
    w -= f.rate * (d + momentum * v);
  } else {
    v = momentum * v + f.fresh * d;
    w -= f.rate * v;
  }
}

/// f.template operator()<kKind>()
template <typename F>
void with_kind(SgdKind kind, F&& f) {
  if (kind == SgdKind::plain)
    f.template operator()<SgdKind::plain>();
  else if (kind == SgdKind::momentum)
    f.template operator()<SgdKind::momentum>();
  else
    f.template operator()<SgdKind::nesterov>();
}

namespace cpu {
/// Nothing changes when the clip is not usable. UpdateRow::first is the velocity.
void sgd_update(UpdateTable& table, Mirrored<SgdFactors>& factors, SgdKind kind, float momentum,
                const Tensor& clip);
}  // namespace cpu
namespace cuda {
void sgd_update(UpdateTable& table, Mirrored<SgdFactors>& factors, SgdKind kind, float momentum,
                const Tensor& clip);
}  // namespace cuda

}  // namespace mixpl
