// The mathematics of the softmax cross-entropy of one row, once for both devices.
#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

/// One row's softmax: p_j = e^(x_j - most) / sum.
struct RowSoftmax {
  float most;  // the largest logit
  double sum;  // of e^(x - most)

  MIXPL_HD static float share(float x, float most) { return expf(x - most); }
  MIXPL_HD double loss(float label_logit) const { return log(sum) + most - double(label_logit); }
  MIXPL_HD float slope(float x, bool is_label) const {
    const float p = static_cast<float>(share(x, most) / sum);
    return p - (is_label ? 1.0f : 0.0f);
  }
};

}  // namespace mixpl
