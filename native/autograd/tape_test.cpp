#include "autograd/tape.h"

#include <gtest/gtest.h>

#include "ops/relu/relu.h"
#include "ops/scaled_sum/scaled_sum.h"

namespace mixpl {
namespace {

class TapeTest : public ::testing::Test {
 protected:
  Tape tape_;
  Context context_ = [this] {
    Context c;
    c.tape = &tape_;
    return c;
  }();
  ContextScope scope_{context_};

  static Tensor leaf(float value) {
    Tensor t = Tensor::full({}, value, DType::f32);
    t.set_requires_grad(true);
    return t;
  }
  static Tensor one() { return Tensor::full({}, 1, DType::f32); }
};

TEST_F(TapeTest, AddsGradientsOverAllUses) {
  const Tensor a = leaf(2), b = leaf(3);
  // 2 (a + b) + 5 (a + a)
  const Tensor sum = scaled_sum({a, b}, 2), twice = scaled_sum({a, a}, 5);
  tape_.backward({scaled_sum({sum, twice}, 1)}, {one()});
  EXPECT_EQ(a.grad().item(), 12);
  EXPECT_EQ(b.grad().item(), 2);
  EXPECT_TRUE(tape_.empty());
}

TEST_F(TapeTest, KeepsAddingToLeavesUntilTheyAreCleared) {
  Tensor a = leaf(1);
  for (int i = 0; i < 3; ++i) tape_.backward({scaled_sum({a}, 2)}, {one()});
  EXPECT_EQ(a.grad().item(), 6);
  a.set_grad(Tensor());
  tape_.backward({scaled_sum({a}, 2)}, {one()});
  EXPECT_EQ(a.grad().item(), 2);
}

TEST_F(TapeTest, RecordsNothingThatNobodyTrains) {
  const Tensor a = Tensor::full({}, 1, DType::f32);
  EXPECT_FALSE(scaled_sum({a}, 2).requires_grad());
  EXPECT_TRUE(tape_.empty());
  EXPECT_FALSE(recording({a}));
}

TEST_F(TapeTest, DoesNotWriteIntoSharedGradients) {
  // Both branches of a residual get the same tensor; relu's backward may only overwrite its own.
  Tensor x = Tensor::from(std::vector<float>{-1, 2}, {2});
  x.set_requires_grad(true);
  const Tensor y = relu(x);
  Tensor both = Tensor::empty_like(y);
  record({both}, {y, x}, [](std::vector<Tensor> d) { return Gradients{d[0], d[0]}; });
  tape_.backward({both}, {Tensor::from(std::vector<float>{10, 10}, {2})});
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{10, 20}));
}

TEST_F(TapeTest, SurvivesAFailingBackward) {
  const Tensor a = leaf(1);
  Tensor out = Tensor::full({}, 1, DType::f32);
  record({out}, {a}, [](std::vector<Tensor>) -> Gradients { throw RangeError("no"); });
  EXPECT_THROW(tape_.backward({out}, {one()}), RangeError);
  EXPECT_TRUE(tape_.empty());
}

TEST_F(TapeTest, LeavesNoGradientsOfAFailedPass) {
  // A tensor that outlives the pass, as filters that several passes share: its node is still to
  // come when a gradient of the wrong shape ends the pass.
  const Tensor a = leaf(1);
  Tensor kept = Tensor::full({}, 1, DType::f32), out = Tensor::full({}, 1, DType::f32);
  record({kept}, {a}, [](std::vector<Tensor> d) { return Gradients{d[0]}; });
  record({out}, {kept, a}, [](std::vector<Tensor> d) {
    return Gradients{d[0], Tensor::zeros({7}, DType::f32)};
  });
  EXPECT_THROW(tape_.backward({out}, {one()}), ShapeError);
  EXPECT_FALSE(kept.grad().defined());
}

TEST_F(TapeTest, GivesWhatATensorGatheredToOneWhoMayWriteIntoIt) {
  Tensor a = leaf(1);
  EXPECT_FALSE(take_grad(a).defined());
  a.set_grad(one());
  EXPECT_TRUE(take_grad(a).unique());
  EXPECT_FALSE(a.grad().defined());
  const Tensor held = one();
  a.set_grad(held);
  EXPECT_FALSE(take_grad(a).defined());
  EXPECT_TRUE(a.grad().same_as(held));
}

}  // namespace
}  // namespace mixpl
