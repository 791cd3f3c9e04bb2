#include "ops/add/add.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "core/context.h"
#include "core/normals_test.h"

namespace mixpl {
namespace {

// y = op() on a tape, then its gradient from dy.
template <typename F>
void go_back(const Tensor& dy, F&& op) {
  Tape tape;
  Context context = Context::current();
  context.tape = &tape;
  Tensor y;
  {
    const ContextScope scope(context);
    y = op();
  }
  tape.backward({y}, {dy});
}

TEST(Add, GivesATensorThatIsBothTermsTwoShares) {
  Tensor x = normals({3, 4}, DType::f32, 1);
  x.set_requires_grad(true);
  const Tensor dy = normals({3, 4}, DType::f32, 2);
  go_back(dy, [&] { return add(x, x); });
  std::vector<float> want = dy.to_vector<float>();
  for (float& v : want) v *= 2;
  EXPECT_EQ(x.grad().to_vector<float>(), want);
}

TEST(Add, PassesTheGradientOnWithoutACopy) {
  Tensor a = normals({3, 4}, DType::f32, 1), b = normals({3, 4}, DType::f32, 2);
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  const Tensor dy = normals({3, 4}, DType::f32, 3);
  go_back(dy, [&] { return add(a, b); });
  EXPECT_TRUE(a.grad().same_as(dy));
  EXPECT_TRUE(b.grad().same_as(dy));
}

}  // namespace
}  // namespace mixpl
