// Processes that share the parts of an iteration: sums of gradients, means of statistics, random
// numbers. Here they are sessions of one process, and what sums is the test's own.
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "core/philox.h"
#include "distributed/collective.h"
#include "models/training_session.h"

namespace mixpl {
namespace {

constexpr const char* kDetector = R"({
  "type": "retinanet", "numClasses": 2,
  "backbone": {"depth": 18, "baseWidth": 4, "norm": "bn", "frozenStages": 1},
  "neck": {"channels": 8, "numOutputs": 3},
  "head": {"channels": 8, "stackedConvs": 1},
  "anchors": {"strides": [8, 16, 32]}})";

class FakeCollective : public Collective {
 public:
  std::string address() const override { return ""; }
  void connect(const std::vector<std::string>&) override {}
  void abort() override {}
};

// As if all the others had the same values.
class Equals : public FakeCollective {
 public:
  explicit Equals(int processes) : processes_(processes) {}
  void sum(Tensor& values) override {
    std::vector<float> numbers = values.to_vector<float>();
    for (float& number : numbers) number *= static_cast<float>(processes_);
    values.copy_from(Tensor::from(numbers, values.shape()));
    sums.push_back(values.numel());
  }
  std::vector<int64_t> sums;

 private:
  int processes_;
};

// What a session would give.
struct Given {};
class Takes : public FakeCollective {
 public:
  void sum(Tensor& values) override {
    given = values.to_vector<float>();
    throw Given();
  }
  std::vector<float> given;
};
std::vector<float> given_by(TrainingSession& session) {
  Takes takes;
  EXPECT_THROW(session.sum_gradients(takes, 2, session.reached()), Given);
  return takes.given;
}

// As if another had these values.
class Adds : public FakeCollective {
 public:
  explicit Adds(std::vector<float> other) : other_(std::move(other)) {}
  void sum(Tensor& values) override {
    ASSERT_EQ(values.numel(), static_cast<int64_t>(other_.size()));
    for (size_t i = 0; i < other_.size(); ++i) values.data<float>()[i] += other_[i];
  }

 private:
  std::vector<float> other_;
};

// Of one process after the other: what reaches one reaches both here.
void sum_of_two(TrainingSession& one, TrainingSession& two) {
  ASSERT_EQ(one.reached(), two.reached());
  Adds to_one(given_by(two)), to_two(given_by(one));
  one.sum_gradients(to_one, 2, one.reached());
  two.sum_gradients(to_two, 2, two.reached());
}

std::unique_ptr<TrainingSession> session_on(Device device) {
  auto session = std::make_unique<TrainingSession>(kDetector, device, ComputeType{}, 7);
  session->configure_optimizer(R"({"type": "sgd"})");
  return session;
}

ImageBatch images(uint64_t seed, Device device) {
  std::vector<float> pixels(64 * 64 * 3);
  const Philox random{seed, 0};
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = random.normal(i);
  return {Tensor::from(pixels, {1, 64, 64, 3}, device), {{64, 64}}, {{64, 64}}};
}

std::vector<Target> targets() {
  return {{Tensor::from(std::vector<float>{8, 8, 40, 44}, {1, 4}),
           Tensor::from(std::vector<int32_t>{1}, {1})}};
}

void learn_part(TrainingSession& session, int64_t part, float weight) {
  session.start_part(part);
  session.forward(images(100 + part, session.device()), targets());
  session.backward(weight);
}

std::vector<float> gradient_of(TrainingSession& session, const std::string& name) {
  return session.gradient(name).to_vector<float>();
}

std::vector<Device> devices() {
  std::vector<Device> all{Device::cpu()};
  if (cuda_reason().empty()) all.push_back(Device::parse("cuda"));
  return all;
}

constexpr const char* kWeight = "backbone.layer2.0.conv1.weight";
constexpr const char* kMean = "backbone.layer2.0.bn1.running_mean";
constexpr const char* kFrozenMean = "backbone.layer1.0.bn1.running_mean";

TEST(Processes, GradientsOfTwoAreTheirSum) {
  const auto alone = session_on(Device::cpu());
  learn_part(*alone, 0, 0.5f);
  learn_part(*alone, 1, 0.5f);

  const auto a = session_on(Device::cpu()), b = session_on(Device::cpu());
  learn_part(*a, 0, 0.5f);
  learn_part(*b, 1, 0.5f);
  sum_of_two(*a, *b);

  for (const Parameter& p : a->detector().parameters().all()) {
    if (!p.trainable) continue;
    const auto want = gradient_of(*alone, p.name), got = gradient_of(*a, p.name);
    double largest = 0;
    for (float value : want) largest = std::max(largest, std::fabs(double{value}));
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 2e-5 * largest) << p.name << ", element " << i;
    EXPECT_EQ(got, gradient_of(*b, p.name)) << p.name;
  }
  a->step(0.01), b->step(0.01);
  for (const Parameter& p : a->detector().parameters().all())
    EXPECT_EQ(p.value.to_vector<float>(), b->find(p.name).to_vector<float>()) << p.name;
}

TEST(Processes, StatisticsAreMeans) {
  const auto one = session_on(Device::cpu()), two = session_on(Device::cpu());
  learn_part(*one, 0, 1);
  learn_part(*two, 1, 1);
  const auto mean_one = one->find(kMean).to_vector<float>(),
             mean_two = two->find(kMean).to_vector<float>();
  EXPECT_NE(mean_one, mean_two);
  sum_of_two(*one, *two);
  const auto both = one->find(kMean).to_vector<float>();
  EXPECT_EQ(both, two->find(kMean).to_vector<float>());
  for (size_t i = 0; i < both.size(); ++i)
    EXPECT_FLOAT_EQ(both[i], (mean_one[i] + mean_two[i]) / 2);
}

TEST(Processes, WhatNoPartReachedStaysAsItIs) {
  for (const Device device : devices()) {
    const auto session = session_on(device);
    const auto& all = session->detector().parameters().all();
    EXPECT_EQ(session->reached(), std::vector<uint8_t>(all.size(), 0));
    learn_part(*session, 0, 1);
    const std::vector<uint8_t> reached = session->reached();
    int64_t numel = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const bool is_live = all[i].trainable || (all[i].kind == ParameterKind::buffer &&
                                                all[i].name.find("layer1") == std::string::npos &&
                                                all[i].name.find("backbone.bn1") != 0);
      EXPECT_EQ(reached[i], is_live) << all[i].name;
      if (reached[i]) numel += (all[i].value.numel() + 3) / 4 * 4;
    }
    const auto before = gradient_of(*session, kWeight),
               mean = session->find(kMean).to_vector<float>(),
               frozen = session->find(kFrozenMean).to_vector<float>();
    Equals three(3);
    session->sum_gradients(three, 3, reached);
    EXPECT_EQ(three.sums, std::vector<int64_t>{numel});
    const auto after = gradient_of(*session, kWeight);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_FLOAT_EQ(after[i], 3 * before[i]);
    const auto mean_after = session->find(kMean).to_vector<float>();
    for (size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(mean_after[i], mean[i], 1e-6);
    EXPECT_EQ(session->find(kFrozenMean).to_vector<float>(), frozen);
    // Another sum is of other parts.
    for (size_t i = 0; i < all.size(); ++i)
      EXPECT_FALSE(all[i].kind == ParameterKind::buffer && session->reached()[i]);
  }
}

TEST(Processes, AGradientOfAnotherProcessAlone) {
  const auto session = session_on(Device::cpu());
  session->start_part(0);
  std::vector<uint8_t> reached(session->reached().size(), 0);
  const auto& all = session->detector().parameters().all();
  for (size_t i = 0; i < all.size(); ++i) reached[i] = all[i].name == kWeight;
  Equals two(2);
  session->sum_gradients(two, 2, reached);
  EXPECT_EQ(gradient_of(*session, kWeight), std::vector<float>(session->find(kWeight).numel(), 0));
  EXPECT_FALSE(session->gradient("neck.fpn_convs.0.conv.weight").defined());
  EXPECT_THROW(session->sum_gradients(two, 2, {1}), ShapeError);
}

// Faster R-CNN draws its samples.
TEST(Processes, RandomNumbersAreThoseOfThePart) {
  constexpr const char* kSampler = R"({
    "type": "faster-rcnn", "numClasses": 2,
    "backbone": {"depth": 18, "baseWidth": 4}, "neck": {"channels": 8},
    "roi": {"fcChannels": 8}})";
  const auto losses_of = [&](std::vector<int64_t> parts) {
    TrainingSession session(kSampler, Device::cpu(), ComputeType{}, 7);
    TrainingSession::LossValues last;
    for (int64_t part : parts) {
      session.start_part(part);
      last = session.loss(images(1, Device::cpu()), targets());
      session.discard();
    }
    return last;
  };
  EXPECT_EQ(losses_of({5}), losses_of({3, 4, 5}));
  EXPECT_NE(losses_of({5}), losses_of({6}));
  TrainingSession session(kDetector, Device::cpu(), ComputeType{}, 7);
  EXPECT_THROW(session.start_part(-1), RangeError);
  EXPECT_THROW(session.start_part(int64_t{1} << 31), RangeError);
}

}  // namespace
}  // namespace mixpl
