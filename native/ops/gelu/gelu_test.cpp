// GELU and its slope against libm in double, densely.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/gelu/gelu_math.h"

namespace mixpl {
namespace {

constexpr uint32_t kStride = 97;
constexpr double kRoot2 = 1.4142135623730951;

// f(x) for each kStride-th float of both signs up to 13.1, where the tail is still normal.
template <typename F>
void for_floats(F&& f) {
  const uint32_t last = std::bit_cast<uint32_t>(13.1f);
  for (uint32_t bits = std::bit_cast<uint32_t>(1e-30f); bits <= last; bits += kStride) {
    f(std::bit_cast<float>(bits));
    f(-std::bit_cast<float>(bits));
  }
}

TEST(Gelu, IsWithinItsBoundOnBothSides) {
  double worst = 0;
  for_floats([&](float x) {
    const double want = x * (0.5 * std::erfc(-x / kRoot2));
    if (std::fabs(want) > 1.2e-38)
      worst = std::max(worst, std::fabs(gelu_of(x) - want) / std::fabs(want));
  });
  EXPECT_LT(worst, 7e-7);
}

TEST(Gelu, SlopeIsWithinItsBound) {
  double worst = 0;
  for_floats([&](float x) {
    const double cdf = 0.5 * std::erfc(-x / kRoot2);
    const double part = x * std::exp(-0.5 * double(x) * x) / std::sqrt(2 * M_PI);
    // Relative to its terms, as it is 0 near x = -0.75.
    worst = std::max(worst, std::fabs(gelu_slope(x) - (cdf + part)) / (cdf + std::fabs(part)));
  });
  EXPECT_LT(worst, 6e-7);
}

TEST(Gelu, HasLimits) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(gelu_of(inf), inf);
  EXPECT_EQ(gelu_of(-inf), 0.0f);
  EXPECT_EQ(gelu_slope(inf), 1.0f);
  EXPECT_EQ(gelu_slope(-inf), 0.0f);
  EXPECT_EQ(gelu_of(0.0f), 0.0f);
  EXPECT_NEAR(gelu_slope(0.0f), 0.5f, 1e-7f);
  EXPECT_TRUE(std::isnan(gelu_of(NAN)) && std::isnan(gelu_slope(NAN)));
}

}  // namespace
}  // namespace mixpl
