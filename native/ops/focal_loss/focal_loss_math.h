#pragma once

#include <cmath>

#include "core/math.h"
#include "ops/focal_loss/focal_loss.h"

namespace mixpl {

struct FocalTerm {
  float loss, dlogit;
};

// With z = ±x, p = sigmoid(z), q = 1 - p:  L = -w q^g log p,  dL/dz = w q^g (g p log p - q).
// kSquare: gamma is 2, the usual case, without powf.
template <bool kSquare>
MIXPL_HD FocalTerm focal_term(float x, bool positive, FocalLossOptions o) {
  const float sign = positive ? 1.0f : -1.0f, z = sign * x;
  const float u = exp_f32(-__builtin_fabsf(z)), d = 1.0f / (1.0f + u);
  const float p = z >= 0 ? d : u * d, q = z >= 0 ? u * d : d;  // not 1 - p: exact as p -> 1
  const float log_p = (z < 0 ? z : 0.0f) - log1p_unit(u);      // finite for every finite x
  const float weight = (positive ? o.alpha : 1 - o.alpha) * (kSquare ? q * q : powf(q, o.gamma));
  return {-weight * log_p, sign * weight * (o.gamma * p * log_p - q)};
}

}  // namespace mixpl
