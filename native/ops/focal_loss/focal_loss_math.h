// The mathematics of the sigmoid focal loss, once for both devices; no loops, no allocation.
#pragma once

#include <cmath>

#include "core/math.h"

namespace mixpl {

struct FocalTerm {
  float loss, slope;  // of weight 1; slope is dL/dz
};

/// What a focal term is made with: to the last digits, or a device's own (see FocalEntry).
struct ExactArithmetic {
  MIXPL_HD static float exp(float x) { return exp_f32(x); }
  MIXPL_HD static float reciprocal(float x) { return 1.0f / x; }
};

/// With z = ±x, p = sigmoid(z), q = 1 - p:  L = -q^g log p,  dL/dz = q^g (g p log p - q).
/// p and q are both computed from e^-|z|, so neither loses digits as the other goes to 1, and log p
/// is finite for every finite z. kGamma is g when that is 0, 1 or 2, else -1 and `gamma` is used;
/// q^g is then exp(g log q), whose relative error grows as 1e-7 * |g log q|.
template <int kGamma, typename Arithmetic = ExactArithmetic>
MIXPL_HD FocalTerm focal_term(float z, float gamma) {
  const float e = Arithmetic::exp(-fabsf(z));
  const float r = Arithmetic::reciprocal(1.0f + e), er = e * r;
  const float p = z >= 0.0f ? r : er, q = z >= 0.0f ? er : r;
  const float softplus = log1p_unit(e);
  const float log_p = (z < 0.0f ? z : 0.0f) - softplus;
  if constexpr (kGamma == 0) return {-log_p, -q};
  if constexpr (kGamma == 1) return {-q * log_p, q * (p * log_p - q)};
  if constexpr (kGamma == 2) return {-(q * q) * log_p, q * q * (2.0f * p * log_p - q)};
  const float log_q = (z > 0.0f ? -z : 0.0f) - softplus;
  const float f = Arithmetic::exp(gamma * log_q);
  return {-f * log_p, f * (gamma * p * log_p - q)};
}

/// A logit's share: z = x and weight = alpha for the label's class, z = -x and weight = alpha - 1
/// for the others, so that the weight has the sign of dz/dx and the slope becomes dL/dx.
template <int kGamma, typename Arithmetic = ExactArithmetic>
MIXPL_HD FocalTerm weighted_focal_term(float z, float weight, float gamma) {
  const FocalTerm term = focal_term<kGamma, Arithmetic>(z, gamma);
  return {fabsf(weight) * term.loss, weight * term.slope};
}

/// f(kGamma) with the exponent as a constant where focal_term has a shortcut, else -1.
template <typename F>
void with_gamma(float gamma, F&& f) {
  if (gamma == 2.0f)
    f.template operator()<2>();
  else if (gamma == 0.0f)
    f.template operator()<0>();
  else if (gamma == 1.0f)
    f.template operator()<1>();
  else
    f.template operator()<-1>();
}

}  // namespace mixpl
