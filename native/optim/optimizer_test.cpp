// State: what a checkpoint restores, and what a target without a gradient keeps. The update rules
// are held against torch and an oracle in test/unit/optim.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/philox.h"
#include "optim/ema.h"
#include "optim/optimizer.h"

namespace mixpl {
namespace {

Tensor normal(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t;
}

std::vector<OptimizerTarget> make_targets() {
  return {{"a", normal({3, 70}, 1), 1, 0.1f},
          {"b", normal({40000}, 2), 0.5f, 0},  // several chunks
          {"empty", normal({0}, 3), 1, 0}};
}

void set_gradients(std::vector<OptimizerTarget>& targets, uint64_t seed) {
  for (size_t i = 0; i < targets.size(); ++i)
    targets[i].value.set_grad(normal(targets[i].value.shape(), seed + i));
}

const char* const kOptimizers[] = {
    R"({"type": "sgd", "clipNorm": 100})",
    R"({"type": "sgd", "momentum": 0})",
    R"({"type": "sgd", "momentum": 0.8, "dampening": 0.4})",
    R"({"type": "sgd", "nesterov": true})",
    R"({"type": "adamw", "clipNorm": 100})",
};

TEST(Optimizer, ContinuesBitExactlyFromItsState) {
  for (const char* json : kOptimizers) {
    auto straight = make_targets(), resumed = make_targets();
    const auto one = create_optimizer(Options(json, "optimizer"), straight);
    auto two = create_optimizer(Options(json, "optimizer"), resumed);
    for (uint64_t step = 0; step < 6; ++step) {
      set_gradients(straight, 100 * step);
      set_gradients(resumed, 100 * step);
      one->step(0.05);
      two->step(0.05);
      if (step != 2) continue;
      const auto saved = two->state();
      two = create_optimizer(Options(json, "optimizer"), resumed);
      auto restored = two->state();
      ASSERT_EQ(saved.size(), restored.size());
      for (size_t i = 0; i < saved.size(); ++i) {
        EXPECT_EQ(saved[i].first, restored[i].first);
        restored[i].second.copy_from(saved[i].second);
      }
    }
    for (size_t i = 0; i < straight.size(); ++i)
      EXPECT_EQ(straight[i].value.to_vector<float>(), resumed[i].value.to_vector<float>()) << json;
  }
}

TEST(Optimizer, LeavesTargetsWithoutGradientAlone) {
  for (const char* json : kOptimizers) {
    auto targets = make_targets();
    const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
    const auto before = targets[0].value.to_vector<float>();
    const uint64_t version = targets[0].value.impl()->version;
    for (uint64_t step = 0; step < 3; ++step) {
      set_gradients(targets, step);
      targets[0].value.set_grad(Tensor());
      optimizer->step(0.1);
    }
    EXPECT_EQ(targets[0].value.to_vector<float>(), before) << json;
    EXPECT_EQ(targets[0].value.impl()->version, version);
    // Its first step is then as a first step: the same as that of a fresh optimizer.
    auto fresh = make_targets();
    const auto other = create_optimizer(Options(json, "optimizer"), fresh);
    set_gradients(targets, 7);
    set_gradients(fresh, 7);
    optimizer->step(0.1);
    other->step(0.1);
    EXPECT_EQ(targets[0].value.to_vector<float>(), fresh[0].value.to_vector<float>()) << json;
    EXPECT_NE(targets[0].value.impl()->version, version);
  }
}

TEST(Optimizer, ChangesNothingWhenTheGradientsAreNotFinite) {
  for (const char* json : kOptimizers)
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      auto targets = make_targets(), others = make_targets();
      const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
      const auto other = create_optimizer(Options(json, "optimizer"), others);
      set_gradients(targets, 1);
      targets[1].value.grad().data<float>()[39999] = bad;
      EXPECT_FALSE(optimizer->step(0.1).taken);
      set_gradients(targets, 2);
      set_gradients(others, 2);
      EXPECT_EQ(optimizer->step(0.1).norm, other->step(0.1).norm);
      for (size_t i = 0; i < targets.size(); ++i)
        EXPECT_EQ(targets[i].value.to_vector<float>(), others[i].value.to_vector<float>()) << json;
    }
}

TEST(Optimizer, ChangesNothingWhenALossIsNotFinite) {
  const auto scalar = [](float value) { return Tensor::full({}, value, DType::f32); };
  for (const char* json : kOptimizers) {
    auto targets = make_targets(), others = make_targets();
    const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
    const auto other = create_optimizer(Options(json, "optimizer"), others);
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      set_gradients(targets, 1);
      const StepReport report = optimizer->step(0.1, {scalar(3), scalar(bad)});
      EXPECT_FALSE(report.taken);
      EXPECT_TRUE(std::isfinite(report.norm));
      EXPECT_EQ(report.losses, (std::vector<float>{3, bad}));
    }
    set_gradients(targets, 2);
    set_gradients(others, 2);
    const StepReport report = optimizer->step(0.1, {scalar(3), scalar(-2), scalar(0)});
    EXPECT_TRUE(report.taken);
    EXPECT_EQ(report.norm, other->step(0.1).norm);
    EXPECT_EQ(report.losses, (std::vector<float>{3, -2, 0}));
    for (size_t i = 0; i < targets.size(); ++i)
      EXPECT_EQ(targets[i].value.to_vector<float>(), others[i].value.to_vector<float>()) << json;
  }
}

// What was derived from a weight, packed filters say, must not outlive its values.
TEST(Optimizer, CountsItsWritesThoughWhatFollowsFails) {
  auto targets = make_targets();
  const auto optimizer = create_optimizer(Options(kOptimizers[0], "optimizer"), targets);
  set_gradients(targets, 7);
  const Tensor& value = targets[0].value;
  const auto before = value.impl()->version;
  const auto values = value.to_vector<float>();
  EXPECT_THROW(optimizer->step(0.05, {}, [](const Tensor&) { throw DeviceError("no"); }),
               DeviceError);
  EXPECT_NE(value.to_vector<float>(), values);
  EXPECT_NE(value.impl()->version, before);
}

TEST(Optimizer, RefusesOtherTypesThanF32) {
  EXPECT_THROW(
      create_optimizer(Options("{}", "optimizer"), {{"w", Tensor::zeros({3}, DType::bf16), 1, 0}}),
      DTypeError);
}

TEST(GradientNorm, IsTheNormOfAllTogether) {
  const Tensor a = normal({20001}, 5), b = normal({7, 9}, 6);
  double sum = 0;
  for (const Tensor& t : {a, b})
    for (float v : t.to_vector<float>()) sum += double(v) * v;
  EXPECT_NEAR(gradient_norm({a, b}), std::sqrt(sum), 1e-12 * std::sqrt(sum));
  a.data<float>()[19999] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(gradient_norm({a, b})));
  b.data<float>()[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gradient_norm({a, b})));
}

TEST(Ema, ChangesNothingWhenItRefuses) {
  const Tensor a = normal({4}, 1), b = normal({4}, 2), wrong = normal({5}, 3);
  const auto before = a.to_vector<float>();
  EmaPairs pairs;
  EXPECT_THROW(pairs.assign({a, b}, {b, wrong}), ShapeError);
  EXPECT_THROW(pairs.assign({a}, {b.to(DType::bf16)}), DTypeError);
  pairs.assign({a}, {b});
  EXPECT_THROW(pairs.update(-0.1), RangeError);
  EXPECT_THROW(pairs.update(std::nan("")), RangeError);
  EXPECT_EQ(a.to_vector<float>(), before);
}

}  // namespace
}  // namespace mixpl
