// Distributions over the bins of one side, once for both devices; no allocation.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/launch.h"

namespace mixpl {

/// One side's softmax: p_j = e^(x_j - most) / sum.
struct SideSoftmax {
  double most, sum;

  template <typename T>
  MIXPL_HD static SideSoftmax of(const T* x, int64_t bins) {
    SideSoftmax s{static_cast<double>(x[0]), 0};
    for (int64_t j = 1; j < bins; ++j) s.most = fmax(s.most, static_cast<double>(x[j]));
    for (int64_t j = 0; j < bins; ++j) s.sum += exp(static_cast<double>(x[j]) - s.most);
    return s;
  }
  MIXPL_HD double at(double x) const { return exp(x - most) / sum; }
  MIXPL_HD double log_at(double x) const { return x - most - log(sum); }
};

/// Expectation of `values`; x is f32 or bf16.
template <typename T>
MIXPL_HD double expected_side(const T* x, const float* values, int64_t bins) {
  const SideSoftmax s = SideSoftmax::of(x, bins);
  double sum = 0;
  for (int64_t j = 0; j < bins; ++j)
    sum += exp(static_cast<double>(x[j]) - s.most) * static_cast<double>(values[j]);
  return sum / s.sum;
}

/// Gradient of expected_side by each x_j, times `d`.
template <typename T>
MIXPL_HD void expected_side_slopes(const T* x, const float* values, int64_t bins, double d,
                                   float* out) {
  const SideSoftmax s = SideSoftmax::of(x, bins);
  const double mean = expected_side(x, values, bins);
  for (int64_t j = 0; j < bins; ++j)
    out[j] = static_cast<float>(d * s.at(x[j]) * (values[j] - mean));
}

/// The bin below a distance and how much of it belongs to the bin above.
struct BinShare {
  int64_t low;
  double high_share;

  MIXPL_HD static BinShare of(double y, int64_t bins) {
    if (!(y > 0)) return {0, 0};  // NaN too
    const double most = static_cast<double>(bins - 1);
    const double held = y < most ? y : most;
    const int64_t low = held < most ? static_cast<int64_t>(held) : bins - 2;
    return {low, held - static_cast<double>(low)};
  }
};

/// The distribution focal loss of one side, of weight 1; y is the wanted distance.
MIXPL_HD double distribution_loss(const float* x, double y, int64_t bins) {
  const SideSoftmax s = SideSoftmax::of(x, bins);
  const BinShare share = BinShare::of(y, bins);
  return -((1 - share.high_share) * s.log_at(x[share.low]) +
           share.high_share * s.log_at(x[share.low + 1]));
}

/// Its gradient by each x_j, times `scale`.
MIXPL_HD void distribution_slopes(const float* x, double y, int64_t bins, double scale,
                                  float* out) {
  const SideSoftmax s = SideSoftmax::of(x, bins);
  const BinShare share = BinShare::of(y, bins);
  for (int64_t j = 0; j < bins; ++j) {
    const double wanted = j == share.low       ? 1 - share.high_share
                          : j == share.low + 1 ? share.high_share
                                               : 0;
    out[j] = static_cast<float>(scale * (s.at(x[j]) - wanted));
  }
}

}  // namespace mixpl
