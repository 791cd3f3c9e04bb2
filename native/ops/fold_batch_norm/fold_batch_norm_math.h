#pragma once

#include <cmath>

#include "core/launch.h"

namespace mixpl {

/// What filter k is multiplied by, and its bias.
struct FoldedNorm {
  float scale, bias;
};
MIXPL_HD FoldedNorm folded_norm(float gamma, float beta, float mean, float variance, float eps) {
  const float scale = gamma / std::sqrt(variance + eps);
  return {scale, beta - mean * scale};
}

/// d scale / d gamma.
MIXPL_HD float inverse_deviation(float variance, float eps) {
  return 1.0f / std::sqrt(variance + eps);
}
MIXPL_HD float folded_weight_gradient(float dfolded, float gamma, float inverse) {
  return dfolded * gamma * inverse;
}
/// `products`: sum over the filter of dfolded times weight.
MIXPL_HD float folded_gamma_gradient(double products, float dbias, float mean, float inverse) {
  return static_cast<float>((products - double(dbias) * mean) * inverse);
}

}  // namespace mixpl
