// AdamW over a table of tensors: the arithmetic of both devices.
#pragma once

#include "optim/gradient_norm.h"

namespace mixpl {

/// Of all tensors.
struct AdamWFactors {
  float beta1, beta2, fresh1, fresh2;  // fresh = 1 - beta
  float eps;
};

/// Of one tensor in one step.
struct AdamWRates {
  float keep;       // what weight decay leaves
  float step_size;  // learning rate over the first moment's bias correction
  float root;       // of the second's, inverted
};

/// The weight and its moments after a step on the gradient g.
MIXPL_HD void adamw_element(float& w, float& m, float& v, float g, float scale,
                            const AdamWFactors& f, const AdamWRates& r) {
  const float d = scale * g;
  m = f.beta1 * m + f.fresh1 * d;
  v = f.beta2 * v + f.fresh2 * d * d;
  w = w * r.keep - r.step_size * m / (sqrtf(v) * r.root + f.eps);
}

namespace cpu {
/// Nothing changes when the clip is not usable. UpdateRow::first and second are the moments.
void adamw_update(UpdateTable& table, Mirrored<AdamWRates>& rates, const AdamWFactors& factors,
                  const Tensor& clip);
}  // namespace cpu
namespace cuda {
void adamw_update(UpdateTable& table, Mirrored<AdamWRates>& rates, const AdamWFactors& factors,
                  const Tensor& clip);
}  // namespace cuda

}  // namespace mixpl
