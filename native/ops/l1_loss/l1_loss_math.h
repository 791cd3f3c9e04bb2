#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

struct L1Term {
  float loss, slope;  // at d, of weight 1
};

MIXPL_HD L1Term smooth_l1_term(float d, float beta) {
  const float size = fabsf(d);
  if (size < beta) return {0.5f * d * d / beta, d / beta};
  return {size - 0.5f * beta, d > 0 ? 1.0f : (d < 0 ? -1.0f : d)};  // 0 at 0, NaN at NaN
}

}  // namespace mixpl
