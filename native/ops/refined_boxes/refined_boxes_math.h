// The sigmoid of a sum with an inverse sigmoid, once for both devices.
#pragma once

#include "ops/sigmoid/sigmoid_math.h"

namespace mixpl {

/// What a reference's inverse sigmoid is the logarithm of: for / against.
struct Odds {
  float for_it, against;
};
/// Both at least eps; a NaN stays one.
MIXPL_HD Odds odds_of(float reference, float eps) {
  const float r = reference < 0.0f ? 0.0f : (reference > 1.0f ? 1.0f : reference);
  const float rest = 1.0f - r;
  return {r < eps ? eps : r, rest < eps ? eps : rest};
}

/// sigmoid(delta + ln(for / against)) = for / (for + against e^-delta): no logarithm is needed, and
/// neither side of it loses digits as the other goes to 1.
MIXPL_HD Sigmoids moved_odds(float delta, Odds odds) {
  const float e = exp_f32(-fabsf(delta));  // never overflows
  const float a = delta >= 0.0f ? odds.for_it : odds.for_it * e;
  const float b = delta >= 0.0f ? odds.against * e : odds.against;
  const float whole = 1.0f / (a + b);
  return {a * whole, b * whole};
}

/// One number of a refined box, and what it lacks to 1. eps 0: the reference is a logit.
MIXPL_HD Sigmoids refined(float delta, float reference, float eps) {
  return eps > 0.0f ? moved_odds(delta, odds_of(reference, eps)) : sigmoids(delta + reference);
}

/// d/dr of the logit of a reference: a part that its maximum holds has no slope.
MIXPL_HD float logit_slope(float reference, float eps) {
  if (!(eps > 0.0f)) return 1.0f;
  if (reference < 0.0f || reference > 1.0f) return 0.0f;
  const float rest = 1.0f - reference;
  return (reference < eps ? 0.0f : 1.0f / reference) + (rest < eps ? 0.0f : 1.0f / rest);
}

}  // namespace mixpl
