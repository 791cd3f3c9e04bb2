// The mathematics of probabilistic anchor assignment, once for both devices.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/launch.h"

namespace mixpl {

/// Two Gaussians on a line.
class Mixture {
 public:
  MIXPL_HD Mixture(double least, double largest) {
    set(0, 0.5, least, 1);
    set(1, 0.5, largest, 1);
  }

  /// ln(weight_k N(x; k))
  MIXPL_HD double log_part(double x, int k) const {
    constexpr double kLogTwoPi = 1.8378770664093454836;
    const double d = x - mean_[k];
    return log_weight_[k] - 0.5 * (kLogTwoPi + d * d * precision_[k] - log_precision_[k]);
  }
  MIXPL_HD double log_density(double x) const {
    const double a = log_part(x, 0), b = log_part(x, 1), most = a < b ? b : a;
    return most + log(exp(a - most) + exp(b - most));
  }
  /// The share of the first Gaussian in x.
  MIXPL_HD double first_share(double x, double log_density) const {
    return exp(log_part(x, 0) - log_density);
  }
  MIXPL_HD bool is_first(double x) const { return !(log_part(x, 0) < log_part(x, 1)); }

  /// Moves component k to what is its own of n numbers, added one by one.
  MIXPL_HD void fit(int k, const double* x, const double* first, int64_t n) {
    constexpr double kLeastVariance = 1e-6;  // scikit-learn's
    double mass = 10 * 2.220446049250313e-16, sum = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double share = k == 0 ? first[i] : 1 - first[i];
      mass += share;
      sum += share * x[i];
    }
    const double mean = sum / mass;
    for (int64_t i = 0; i < n; ++i) {
      const double share = k == 0 ? first[i] : 1 - first[i];
      squares += share * (x[i] - mean) * (x[i] - mean);
    }
    set(k, mass / static_cast<double>(n), mean, 1 / (squares / mass + kLeastVariance));
  }

 private:
  MIXPL_HD void set(int k, double weight, double mean, double precision) {
    mean_[k] = mean;
    precision_[k] = precision;
    log_weight_[k] = log(weight);
    log_precision_[k] = log(precision);
  }

  double mean_[2], precision_[2], log_weight_[2], log_precision_[2];
};

constexpr int kMixtureRounds = 100;
constexpr double kMixtureTolerance = 1e-3;  // of the mean log-likelihood; scikit-learn's

}  // namespace mixpl
