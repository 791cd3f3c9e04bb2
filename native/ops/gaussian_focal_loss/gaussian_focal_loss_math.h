// The mathematics of the Gaussian focal loss, once for both devices; no loops, no allocation.
#pragma once

#include <cmath>

#include "core/math.h"
#include "ops/gaussian_focal_loss/gaussian_focal_loss.h"

namespace mixpl {

struct HeldSigmoid {
  float p, q;          // probability and 1 - p, held in [c, 1 - c]
  float log_p, log_q;  // their logarithms
  bool held;           // then nothing moves with the logit
};

/// @param log_low, log_high ln c and ln(1 - c)
MIXPL_HD HeldSigmoid held_sigmoid(float x, float c, float log_low, float log_high) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e), er = e * r;
  const float softplus = log1p_unit(e);
  HeldSigmoid s;
  s.p = x >= 0.0f ? r : er;
  s.q = x >= 0.0f ? er : r;
  s.log_p = (x < 0.0f ? x : 0.0f) - softplus;
  s.log_q = (x > 0.0f ? -x : 0.0f) - softplus;
  const bool low = s.p < c, high = s.q < c;
  s.held = low || high;
  s.p = low ? c : high ? 1.0f - c : s.p;
  s.q = low ? 1.0f - c : high ? c : s.q;
  s.log_p = low ? log_low : high ? log_high : s.log_p;
  s.log_q = low ? log_high : high ? log_low : s.log_q;
  return s;
}

struct GaussianFocalTerm {
  float loss, slope;  // slope is dL/dlogit
};

/// p^a: kSquare when a is 2.
template <bool kSquare>
MIXPL_HD float focal_power(float p, float log_p, float a) {
  if constexpr (kSquare) return p * p;
  return exp_f32(a * log_p);
}

/// L = -q^a ln p; dL/dx = q^a (a p ln p - q), from dp/dx = p q.
template <bool kSquare>
MIXPL_HD GaussianFocalTerm gaussian_positive(const HeldSigmoid& s, float alpha) {
  const float f = focal_power<kSquare>(s.q, s.log_q, alpha);
  return {-f * s.log_p, s.held ? 0.0f : f * (alpha * s.p * s.log_p - s.q)};
}

/// L = -p^a ln q, before (1 - heat)^gamma; dL/dx = p^a (p - a q ln q).
template <bool kSquare>
MIXPL_HD GaussianFocalTerm gaussian_negative(const HeldSigmoid& s, float alpha) {
  const float f = focal_power<kSquare>(s.p, s.log_p, alpha);
  return {-f * s.log_q, s.held ? 0.0f : f * (s.p - alpha * s.q * s.log_q)};
}

/// The options with what follows from them, and the terms with their weights.
struct GaussianFocal {
  GaussianFocalLossOptions options;
  float log_low, log_high;

  static GaussianFocal of(const GaussianFocalLossOptions& o) {
    return {o, std::log(o.clamp), static_cast<float>(std::log1p(-static_cast<double>(o.clamp)))};
  }
  /// The exponents are those that have shortcuts: kUsual below.
  bool usual() const { return options.alpha == 2.0f && options.gamma == 4.0f; }

  template <bool kUsual>
  MIXPL_HD GaussianFocalTerm positive(float x) const {
    const GaussianFocalTerm term = gaussian_positive<kUsual>(held(x), options.alpha);
    return {options.positive_weight * term.loss, options.positive_weight * term.slope};
  }
  /// @param cold 1 - heat
  template <bool kUsual>
  MIXPL_HD GaussianFocalTerm negative(float x, float cold) const {
    const float square = cold * cold;
    const float factor =
        options.negative_weight * (kUsual ? square * square : powf(cold, options.gamma));
    const GaussianFocalTerm term = gaussian_negative<kUsual>(held(x), options.alpha);
    return {factor * term.loss, factor * term.slope};
  }

 private:
  MIXPL_HD HeldSigmoid held(float x) const {
    return held_sigmoid(x, options.clamp, log_low, log_high);
  }
};

}  // namespace mixpl
