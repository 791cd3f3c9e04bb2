// The elementary functions against libm in double, over samples dense enough to see every
// polynomial interval: each float whose bits are a multiple of kStride.
#include "core/math.h"

#include <gtest/gtest.h>

#include <limits>

namespace mixpl {
namespace {

constexpr uint32_t kStride = 97;  // odd, so all mantissas take part over the exponents

// Largest relative error of f against truth for every kStride-th float in [low, high], low >= 0.
template <typename F, typename Truth>
double worst(float low, float high, double sign, F&& f, Truth&& truth) {
  double largest = 0;
  const uint32_t last = std::bit_cast<uint32_t>(high);
  for (uint32_t bits = std::bit_cast<uint32_t>(low); bits <= last; bits += kStride) {
    const float x = static_cast<float>(sign) * std::bit_cast<float>(bits);
    const double want = truth(static_cast<double>(x));
    largest = std::max(largest, std::fabs(f(x) - want) / want);
  }
  return largest;
}

double exp_worst(float low, float high, double sign) {
  return worst(low, high, sign, exp_f32, [](double x) { return std::exp(x); });
}

TEST(Exp, IsWithinItsBoundWhereTheResultIsNormal) {
  EXPECT_LT(exp_worst(1e-6f, 88.7f, 1), 1.2e-7);
  EXPECT_LT(exp_worst(1e-6f, 87.3f, -1), 1.2e-7);
}

TEST(Exp, IsWithinTwoUnitsWhereTheResultIsSubnormal) {
  const double unit = std::numeric_limits<float>::denorm_min();
  for (float x = -87.3f; x > -104.5f; x -= 1e-4f)
    ASSERT_LE(std::fabs(exp_f32(x) - std::exp(static_cast<double>(x))), 2 * unit) << x;
}

TEST(Exp, HasDefinedEnds) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-inf), 0.0f);
  EXPECT_EQ(exp_f32(-3e38f), 0.0f);
  EXPECT_EQ(exp_f32(inf), inf);
  EXPECT_EQ(exp_f32(89.0f), inf);
  EXPECT_TRUE(std::isnan(exp_f32(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Log1pUnit, IsWithinItsBound) {
  const auto log1p = [](double x) { return std::log1p(x); };
  EXPECT_LT(worst(1e-38f, 1.0f, 1, log1p_unit, log1p), 1.5e-7);
  EXPECT_EQ(log1p_unit(0.0f), 0.0f);
  EXPECT_TRUE(std::isnan(log1p_unit(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace mixpl
