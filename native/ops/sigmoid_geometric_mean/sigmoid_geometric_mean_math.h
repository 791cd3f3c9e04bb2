// The arithmetic of sigmoid_geometric_mean, once for both devices.
#pragma once

#include "ops/sigmoid/sigmoid_math.h"

namespace mixpl {

/// z = sqrt(sigmoid(x)) * root, root = sqrt(sigmoid(y)): the root of each factor, since their product
/// would be 0 from logits of -52 on.
MIXPL_HD float geometric_mean(float x, float root) {
  const float e = exp_f32(-fabsf(x)), r = 1.0f / (1.0f + e);
  return sqrtf(x >= 0.0f ? r : e * r) * root;
}

struct MeanSlopes {
  float dx, share;  // dz/dx; the sum of shares times sigmoid(-y) is dz/dy
};
MIXPL_HD MeanSlopes geometric_mean_slopes(float dz, float x, float half_root) {
  const Sigmoids s = sigmoids(x);
  const float g = dz * half_root * sqrtf(s.p);
  return {g * s.q, g};
}

}  // namespace mixpl
