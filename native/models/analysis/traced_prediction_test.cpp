// What a trace of a prediction holds, and which detectors cannot be written down.
#include "models/analysis/traced_prediction.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "ops/relu/relu.h"
#include "ops/sigmoid/sigmoid.h"

namespace mixpl {
namespace {

// Predicts by a function.
class Made final : public Detector {
 public:
  explicit Made(std::function<Tensor(const Tensor&)> network) : network_(std::move(network)) {}
  PendingDetections predict(const ImageBatch& images) override {
    network_(images.pixels);
    return std::vector<Detections>(1);
  }

 protected:
  std::vector<FeatureMaps> pyramids(const std::vector<Tensor>&) const override { return {}; }
  std::vector<Losses> head_losses(std::vector<FeatureMaps>,
                                  const std::vector<LabelledBatch>&) override {
    return {};
  }

 private:
  std::function<Tensor(const Tensor&)> network_;
};

TracedPrediction traced(std::function<Tensor(const Tensor&)> network) {
  Made detector(std::move(network));
  return traced_prediction(detector, 4, 8, {4, 8});
}

// An operation that does not say what it does.
Tensor silently_doubled(const Tensor& x) {
  Tensor y = Tensor::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data<float>()[i] = 2 * x.data<float>()[i];
  return y;
}

std::string refusal(std::function<Tensor(const Tensor&)> network) {
  try {
    traced(std::move(network));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(TracedPrediction, HoldsStepsConstantsAndOtherHandles) {
  const Tensor constant = Tensor::full({1, 4, 8, 3}, 0.5f, DType::f32);
  const TracedPrediction t = traced([&](const Tensor& x) {
    relu(constant);
    return sigmoid(relu(x).alias({4, 24}).detach());
  });
  const auto& steps = t.trace.steps();
  std::vector<std::string> ops;
  for (const TraceStep& step : steps) ops.push_back(step.op);
  // One handle of another shape, then one of its own.
  EXPECT_EQ(ops, (std::vector<std::string>{"relu", "relu", "reshape", "sigmoid"}));
  EXPECT_EQ(steps[1].inputs, std::vector<int>{t.input});
  EXPECT_EQ(steps[2].inputs, steps[1].outputs);
  EXPECT_EQ(steps[3].inputs, steps[2].outputs);
  std::vector<int> sources;
  for (const auto& [number, values] : t.trace.sources()) sources.push_back(number);
  EXPECT_EQ(sources, (std::vector<int>{t.input, steps[0].inputs[0]}));
  EXPECT_TRUE(t.trace.sources().at(steps[0].inputs[0]).same_as(constant));
  EXPECT_EQ(t.trace.shapes()[steps[2].outputs[0]], (Shape{4, 24}));
}

TEST(TracedPrediction, KeepsNothingThatAStepMade) {
  std::vector<std::weak_ptr<void>> made;
  bool kept_while_it_runs = false;
  const TracedPrediction t = traced([&](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 3; ++i) {
      y = relu(y);
      made.push_back(y.impl()->storage);
    }
    for (size_t i = made.size() - 3; i + 1 < made.size(); ++i)
      kept_while_it_runs |= !made[i].expired();
    return y;
  });
  EXPECT_EQ(t.trace.steps().size(), 3u);
  EXPECT_FALSE(kept_while_it_runs);
  for (const auto& storage : made) EXPECT_TRUE(storage.expired());
}

// The allocator gives memory again that a step's output was in.
TEST(TracedPrediction, TellsWhatTakesThePlaceOfAnother) {
  const std::string why = refusal([](const Tensor& x) {
    const Tensor y = sigmoid(relu(x));
    return relu(silently_doubled(y));
  });
  EXPECT_NE(why.find("got one before 'relu' that cannot"), std::string::npos) << why;
  const TracedPrediction t = traced([](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 8; ++i) y = i % 2 ? sigmoid(y) : relu(y).detach();
    return y;
  });
  // A chain, with a handle of its own behind each relu.
  const auto& steps = t.trace.steps();
  ASSERT_EQ(steps.size(), 12u);
  for (size_t i = 1; i < steps.size(); ++i) EXPECT_EQ(steps[i].inputs, steps[i - 1].outputs);
}

TEST(TracedPrediction, RefusesWhatDependsOnThePictureUnnoticed) {
  EXPECT_EQ(refusal([](const Tensor& x) { return relu(silently_doubled(x)); }),
            "trace: the detector must be made of steps that can be written down, got one before "
            "'relu' that cannot");
  // Of no constant, nobody minds.
  EXPECT_EQ(refusal([](const Tensor& x) {
              return relu(silently_doubled(Tensor::full(x.shape(), 1, DType::f32)));
            }),
            "");
}

TEST(TracedPrediction, RefusesStepsThatDependOnThePicture) {
  int calls = 0;
  EXPECT_EQ(refusal([&](const Tensor& x) { return calls++ ? relu(x) : sigmoid(x); }),
            "trace: the detector must be made of steps that can be written down, got one whose "
            "steps depend on the image");
  EXPECT_EQ(refusal([](const Tensor& x) { return x; }),
            "trace: the detector must be made of steps that can be written down, got one of none");
}

}  // namespace
}  // namespace mixpl
