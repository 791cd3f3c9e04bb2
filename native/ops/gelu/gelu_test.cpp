// GELU and its slope against libm in double, densely.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "ops/gelu/gelu.h"
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

// In bf16 values come from tables.
TEST(Gelu, OfEveryBf16IsThatOfItsFloatRounded) {
  constexpr int64_t kCount = (1 << 16) + 5;  // fills neither registers nor pieces
  const Tensor x = Tensor::empty({kCount}, DType::bf16), dy = Tensor::empty({kCount}, DType::bf16);
  Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x);
  for (int64_t i = 0; i < kCount; ++i) {
    x.data<bfloat16>()[i].bits = static_cast<uint16_t>(i * 40503);
    dy.data<bfloat16>()[i] = bfloat16(static_cast<float>(i % 1001) / 250.0f - 2.0f);
  }
  cpu::gelu_forward(x, y);
  cpu::gelu_backward(x, dy, dx);
  const auto same = [](bfloat16 got, float want) {
    return std::isnan(want) ? std::isnan(float(got)) : got.bits == bfloat16(want).bits;
  };
  for (int64_t i = 0; i < kCount; ++i) {
    const float at = float(x.data<bfloat16>()[i]), slope = float(dy.data<bfloat16>()[i]);
    EXPECT_TRUE(same(y.data<bfloat16>()[i], gelu_of(at))) << at;
    EXPECT_TRUE(same(dx.data<bfloat16>()[i], slope * gelu_slope(at))) << at << ", " << slope;
  }
}

}  // namespace
}  // namespace mixpl
