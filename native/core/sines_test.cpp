#include "core/sines.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace mixpl {
namespace {

TEST(SineAndCosine, AreWithinTheirPromise) {
  double worst = 0;
  const auto check = [&](float x) {
    const SineAndCosine got = sine_and_cosine(x);
    worst = std::max({worst, std::abs(got.sine - std::sin(double(x))),
                      std::abs(got.cosine - std::cos(double(x)))});
  };
  for (int64_t i = -2000000; i <= 2000000; ++i) check(static_cast<float>(i) * 5e-4f);  // all angles
  for (int64_t i = -1000000; i <= 1000000; ++i) check(static_cast<float>(i) * 7e-6f);  // up to 7
  for (float x = 1e-30f; x < 1000; x *= 1.001f) check(x), check(-x);
  EXPECT_LT(worst, 1e-7);
}

TEST(SineAndCosine, KeepsZeroAndNoNumber) {
  EXPECT_EQ(sine_and_cosine(0).sine, 0.0f);
  EXPECT_EQ(sine_and_cosine(0).cosine, 1.0f);
  EXPECT_TRUE(std::isnan(sine_and_cosine(NAN).sine));
  EXPECT_TRUE(std::isnan(sine_and_cosine(NAN).cosine));
}

}  // namespace
}  // namespace mixpl
