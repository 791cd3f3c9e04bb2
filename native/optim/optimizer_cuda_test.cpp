// Optimizers, gradient norm and EMA on a GPU, or its emulation, against the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/device.h"
#include "core/philox.h"
#include "optim/ema.h"
#include "optim/optimizer.h"

namespace mixpl {
namespace {

// Sums in another order, and a divide or a square root: units of the last place of f32.
constexpr double kTolerance = 1e-6;

class OnCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
    device_ = Device::parse("cuda");
  }
  Device device_;
};

Tensor normal(const Shape& shape, uint64_t seed, Device device) {
  std::vector<float> values(shape.numel());
  const Philox random{seed, 0};
  for (size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  return Tensor::from(values, shape, device);
}

void expect_close(const Tensor& got, const Tensor& want, const std::string& what) {
  const auto a = got.to_vector<float>(), b = want.to_vector<float>();
  ASSERT_EQ(a.size(), b.size()) << what;
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(a[i], b[i], kTolerance * std::max(1.0, std::fabs(double(b[i]))))
        << what << ", element " << i;
}

// Sizes: less than a vector, several pieces with a remainder, a whole piece, one, none.
std::vector<OptimizerTarget> targets_on(Device device) {
  const int64_t sizes[] = {3, 2 * kFlatChunk + 1234, kFlatChunk, 1, 0, 70};
  std::vector<OptimizerTarget> targets;
  for (int64_t size : sizes) {
    const auto i = static_cast<float>(targets.size());
    targets.push_back({str("t", targets.size()), normal({size}, 1 + targets.size(), device),
                       1 - 0.1f * i, 0.02f * i});
  }
  return targets;
}

// Target 3 has a gradient in every second step only.
void set_gradients(std::vector<OptimizerTarget>& targets, uint64_t step, Device device) {
  for (size_t i = 0; i < targets.size(); ++i)
    targets[i].value.set_grad(i == 3 && step % 2 == 0
                                  ? Tensor()
                                  : normal(targets[i].value.shape(), 100 * step + i, device));
}

const char* const kOptimizers[] = {
    R"({"type": "sgd", "momentum": 0, "clipNorm": 20})",
    R"({"type": "sgd"})",
    R"({"type": "sgd", "momentum": 0.8, "dampening": 0.4, "clipNorm": 20})",
    R"({"type": "sgd", "nesterov": true, "clipNorm": 1e9})",
    R"({"type": "adamw", "clipNorm": 20})",
};

TEST_F(OnCuda, OptimizersAreTheCpus) {
  for (const char* json : kOptimizers) {
    auto here = targets_on(Device::cpu()), there = targets_on(device_);
    const auto one = create_optimizer(Options(json, "optimizer"), here);
    const auto two = create_optimizer(Options(json, "optimizer"), there);
    for (uint64_t step = 0; step < 4; ++step) {
      set_gradients(here, step, Device::cpu());
      set_gradients(there, step, device_);
      const double norm = one->step(0.03).norm;
      EXPECT_NEAR(two->step(0.03).norm, norm, 1e-12 * norm) << json;
    }
    for (size_t i = 0; i < here.size(); ++i)
      expect_close(there[i].value, here[i].value, str(json, ", ", here[i].name));
    const auto wanted = one->state(), got = two->state();
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i)
      expect_close(got[i].second, wanted[i].second, str(json, ", ", wanted[i].first));
  }
}

TEST_F(OnCuda, TwoRunsGiveTheSameBits) {
  for (const char* json : kOptimizers) {
    std::vector<float> runs[2];
    for (auto& run : runs) {
      auto targets = targets_on(device_);
      const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
      for (uint64_t step = 0; step < 2; ++step) {
        set_gradients(targets, step, device_);
        run.push_back(static_cast<float>(optimizer->step(0.03).norm));
      }
      for (const auto& target : targets)
        for (float v : target.value.to_vector<float>()) run.push_back(v);
    }
    EXPECT_EQ(runs[0], runs[1]) << json;
  }
}

TEST_F(OnCuda, AStepOnGradientsThatAreNotFiniteChangesNothing) {
  for (const char* json : kOptimizers)
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      auto targets = targets_on(device_);
      const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
      set_gradients(targets, 1, device_);
      optimizer->step(0.03);
      std::vector<std::vector<float>> before;
      for (const auto& [name, tensor] : optimizer->state())
        before.push_back(tensor.to_vector<float>());
      for (const auto& target : targets) before.push_back(target.value.to_vector<float>());
      std::vector<float> gradient(70, 1);
      gradient.back() = bad;
      targets.back().value.set_grad(Tensor::from(gradient, {70}, device_));
      EXPECT_FALSE(optimizer->step(0.03).taken) << json;
      size_t at = 0;
      for (const auto& [name, tensor] : optimizer->state())
        EXPECT_EQ(tensor.to_vector<float>(), before[at++]) << json << name;
      for (const auto& target : targets)
        EXPECT_EQ(target.value.to_vector<float>(), before[at++]) << json << target.name;
    }
}

TEST_F(OnCuda, AStepOnLossesThatAreNotFiniteChangesNothing) {
  // More losses than threads look at.
  for (const size_t count : {size_t{1}, size_t{700}})
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      auto targets = targets_on(device_);
      const auto optimizer = create_optimizer(Options(kOptimizers[0], "optimizer"), targets);
      set_gradients(targets, 1, device_);
      std::vector<Tensor> losses;
      for (size_t i = 0; i < count; ++i)
        losses.push_back(Tensor::full({}, static_cast<float>(i), DType::f32, device_));
      EXPECT_TRUE(optimizer->step(0.03, losses).taken);
      const auto before = targets[1].value.to_vector<float>();
      losses.back().fill(bad);
      const StepReport report = optimizer->step(0.03, losses);
      EXPECT_FALSE(report.taken);
      EXPECT_TRUE(std::isfinite(report.norm));
      ASSERT_EQ(report.losses.size(), count);
      for (size_t i = 0; i + 1 < count; ++i) EXPECT_EQ(report.losses[i], static_cast<float>(i));
      EXPECT_FALSE(std::isfinite(report.losses.back()));
      EXPECT_EQ(targets[1].value.to_vector<float>(), before);
    }
}

// After the first steps a step waits once, for norm and losses, and takes no new memory.
TEST_F(OnCuda, AStepWaitsOnceAndAllocatesNothing) {
  for (const char* json : kOptimizers) {
    auto targets = targets_on(device_);
    const auto optimizer = create_optimizer(Options(json, "optimizer"), targets);
    set_gradients(targets, 1, device_);
    const Tensor loss = Tensor::full({}, 2, DType::f32, device_);
    for (int warm_up = 0; warm_up < 2; ++warm_up) optimizer->step(0.03, {loss, loss});
    const MemoryStats before = memory_stats(device_);
    optimizer->step(0.03, {loss, loss});
    const MemoryStats after = memory_stats(device_);
    EXPECT_EQ(after.synchronisations - before.synchronisations, 1) << json;
    EXPECT_EQ(after.system_allocations, before.system_allocations) << json;
  }
}

TEST_F(OnCuda, GradientNormIsTheCpus) {
  std::vector<Tensor> here, there;
  for (const auto& target : targets_on(Device::cpu())) here.push_back(target.value);
  for (const auto& target : targets_on(device_)) there.push_back(target.value);
  const double norm = gradient_norm(here);
  EXPECT_NEAR(gradient_norm(there), norm, 1e-12 * norm);
  EXPECT_EQ(gradient_norm({Tensor::zeros({0}, DType::f32, device_)}), 0);
  EXPECT_NEAR(gradient_norm({Tensor::full({32}, 1e25f, DType::f32, device_)}),
              std::sqrt(32) * double(1e25f), 1e13);
  EXPECT_THROW(gradient_norm({here[0], there[0]}), DeviceError);
}

TEST_F(OnCuda, EmaIsTheCpus) {
  for (const double momentum : {0.0, 2e-4, 0.3, 1.0}) {
    std::vector<Tensor> teacher[2], student[2];
    for (const int at : {0, 1}) {
      const Device device = at ? device_ : Device::cpu();
      for (const auto& target : targets_on(device)) {
        teacher[at].push_back(target.value);
        student[at].push_back(normal(target.value.shape(), 50, device));
      }
    }
    EmaPairs pairs[2];
    for (const int at : {0, 1}) {
      pairs[at].assign(teacher[at], student[at]);
      for (int update = 0; update < 3; ++update) pairs[at].update(momentum);
    }
    for (size_t i = 0; i < teacher[0].size(); ++i)
      expect_close(teacher[1][i], teacher[0][i], str("momentum ", momentum, ", tensor ", i));
  }
  const Tensor odd = Tensor::full({5}, INFINITY, DType::f32, device_);
  const Tensor one = Tensor::full({5}, 1, DType::f32, device_);
  EmaPairs pairs;
  pairs.assign({odd}, {one});
  pairs.update(1);
  EXPECT_EQ(odd.to_vector<float>(), std::vector<float>(5, 1.0f));
}

// On both devices: the teacher goes along with a step that is taken, and is left alone, by a device
// that nobody has asked, with one that is not.
TEST_F(OnCuda, EmaFollowsAStepThatIsTaken) {
  for (const Device device : {Device::cpu(), device_})
    for (const double momentum : {0.25, 1.0}) {
      auto targets = targets_on(device);
      const auto optimizer = create_optimizer(Options(kOptimizers[0], "optimizer"), targets);
      std::vector<Tensor> teacher, student;
      for (const auto& target : targets) {
        teacher.push_back(Tensor::full(target.value.shape(), 2, DType::f32, device));
        student.push_back(target.value);
      }
      EmaPairs pairs;
      pairs.assign(teacher, student);
      const auto follow = [&](const Tensor& clip) { pairs.update(momentum, clip); };
      Tensor loss = Tensor::full({}, INFINITY, DType::f32, device);
      set_gradients(targets, 1, device);
      EXPECT_FALSE(optimizer->step(0.03, {loss}, follow).taken);
      for (const Tensor& t : teacher)
        EXPECT_EQ(t.to_vector<float>(), std::vector<float>(t.numel(), 2.0f));
      loss.fill(1);
      const int64_t waits = memory_stats(device_).synchronisations;
      EXPECT_TRUE(optimizer->step(0.03, {loss}, follow).taken);
      if (device.is_cuda()) EXPECT_EQ(memory_stats(device_).synchronisations, waits + 1);
      for (size_t i = 0; i < teacher.size(); ++i) {
        const std::vector<float> now = student[i].to_vector<float>();
        std::vector<float> want;
        for (const float v : now)
          want.push_back(ema_element(momentum == 1 ? 0 : 2, v, static_cast<float>(1 - momentum),
                                     static_cast<float>(momentum)));
        EXPECT_EQ(teacher[i].to_vector<float>(), want) << to_string(device) << momentum;
      }
    }
}

}  // namespace
}  // namespace mixpl
