#include "autograd/recompute.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "ops/relu/relu.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

class RecomputeTest : public ::testing::Test {
 protected:
  Tape tape_;
  Context context_ = [this] {
    Context c;
    c.tape = &tape_;
    return c;
  }();
  ContextScope scope_{context_};
  int runs_ = 0;

  static Tensor leaf(float value) {
    Tensor t = Tensor::full({}, value, DType::f32);
    t.set_requires_grad(true);
    return t;
  }
  static Tensor one() { return Tensor::full({}, 1, DType::f32); }
  // 3 (x + x + weight), relu
  Part part(const Tensor& weight) {
    return [this, weight](const std::vector<Tensor>& in) {
      ++runs_;
      return std::vector<Tensor>{relu(scaled_sum({in[0], in[0], weight}, 3))};
    };
  }
};

TEST_F(RecomputeTest, GivesTheGradientsOfThePart) {
  const Tensor x = leaf(2), weight = leaf(5);
  const Tensor y = recompute({x}, part(weight))[0];
  EXPECT_EQ(y.item(), 27);
  EXPECT_EQ(runs_, 1);
  // The input goes elsewhere, too.
  tape_.backward({scaled_sum({y, x}, 2)}, {one()});
  EXPECT_EQ(runs_, 2);
  EXPECT_EQ(x.grad().item(), 14);
  EXPECT_EQ(weight.grad().item(), 6);
}

TEST_F(RecomputeTest, WorksWhereOnlyParametersAreTrained) {
  const Tensor x = Tensor::full({}, 2, DType::f32), weight = leaf(5);
  const Tensor y = recompute({x}, part(weight))[0];
  EXPECT_TRUE(y.requires_grad());
  tape_.backward({y}, {one()});
  EXPECT_EQ(weight.grad().item(), 3);
  EXPECT_FALSE(x.grad().defined());
}

TEST_F(RecomputeTest, RecordsNothingThatNobodyTrains) {
  const Tensor x = Tensor::full({}, 2, DType::f32);
  EXPECT_FALSE(recompute({x}, part(x))[0].requires_grad());
  EXPECT_TRUE(tape_.empty());
  Context silent;
  ContextScope scope(silent);
  EXPECT_EQ(recompute({leaf(2)}, part(leaf(5)))[0].item(), 27);
  EXPECT_EQ(runs_, 2);
}

// 1e8 + 3 - 1e8 is 0 in f32, 1e8 - 1e8 + 3 is 3: the order in which an input gathers is kept.
TEST_F(RecomputeTest, AddsInTheOrderOfThePlainPass) {
  const auto gradient = [&](bool again) {
    const Tensor x = leaf(1);
    const Part twice = [](const std::vector<Tensor>& in) {
      const Tensor a = scaled_sum({in[0]}, 3), b = scaled_sum({in[0]}, -1e8f);
      return std::vector<Tensor>{scaled_sum({a, b}, 1)};
    };
    const Tensor y = again ? recompute({x}, twice)[0] : twice({x})[0];
    tape_.backward({scaled_sum({y, scaled_sum({x}, 1e8f)}, 1)}, {one()});
    return x.grad().item();
  };
  EXPECT_EQ(gradient(true), gradient(false));
  EXPECT_EQ(gradient(true), 3);
}

TEST_F(RecomputeTest, NestsAndAddsUpOverPasses) {
  const Tensor x = leaf(2), weight = leaf(5);
  for (int pass = 1; pass <= 2; ++pass) {
    const Tensor y = recompute(
        {x}, [&](const std::vector<Tensor>& in) { return recompute(in, part(weight)); })[0];
    tape_.backward({y}, {one()});
    EXPECT_EQ(x.grad().item(), 6 * pass);
    EXPECT_EQ(weight.grad().item(), 3 * pass);
  }
}

TEST_F(RecomputeTest, TakesOutputsThatNobodyAskedFor) {
  const Tensor x = leaf(2);
  const std::vector<Tensor> y = recompute({x}, [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{scaled_sum({in[0]}, 7), scaled_sum({in[0]}, 5)};
  });
  tape_.backward({y[1]}, {one()});
  EXPECT_EQ(x.grad().item(), 5);
}

// Ops write into gradients that nobody else holds, and round once less then.
TEST_F(RecomputeTest, HandsOnGradientsThatNobodyElseHolds) {
  int unique = 0;
  const auto last = [&](const std::vector<Tensor>& in) {
    const Tensor y = Tensor::full({}, in[0].item(), DType::f32);
    record({y}, {in[0]}, [&unique](std::vector<Tensor> douts) {
      unique += douts[0].unique();
      return Gradients{douts[0]};
    });
    return std::vector<Tensor>{y};
  };
  const Tensor x = leaf(2);
  tape_.backward({scaled_sum(last({x}), 2)}, {one()});
  EXPECT_EQ(unique, 1);
  tape_.backward({scaled_sum(recompute({x}, last), 2)}, {one()});
  EXPECT_EQ(unique, 2);
  EXPECT_EQ(x.grad().item(), 4);
}

}  // namespace
}  // namespace mixpl
