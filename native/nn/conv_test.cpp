#include "nn/conv.h"

#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "core/context.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"

namespace mixpl {
namespace {

// A convolution whose norm is folded into it, and the names that it gave its parameters.
struct Folded : ::testing::Test {
  Folded() {
    ConvSpec spec;
    spec.in = 3;
    spec.out = 4;
    spec.norm = NormKind::bn_eval;
    spec.init = init::normal(0.5f);
    conv = ConvNorm(Scope(store, 1), "conv", "bn", spec);
    for (const char* name : names) find(name).copy_from(noise(find(name).shape(), stream++));
  }

  // Positive: a variance is among them.
  static Tensor noise(const Shape& shape, uint64_t stream) {
    Tensor t = Tensor::empty(shape, DType::f32);
    const Philox random(3, stream);
    for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = 0.5f + random.uniform(i);
    return t;
  }
  Tensor find(const char* name) { return store.find(name)->value; }

  void expect_up_to_date() {
    const auto [weight, bias] =
        fold_batch_norm(find("conv.weight"), find("bn.weight"), find("bn.bias"),
                        find("bn.running_mean"), find("bn.running_var"), 1e-5f);
    Conv2dOptions options;
    options.padding = 1;
    EXPECT_EQ(conv(x).to_vector<float>(), conv2d(x, weight, bias, options).to_vector<float>());
  }

  static constexpr const char* names[] = {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean",
                                          "bn.running_var"};
  uint64_t stream = 1;
  ParameterStore store;
  ConvNorm conv;
  Tensor x = noise({1, 5, 6, 3}, 100);
};

TEST_F(Folded, FollowsEveryTensorThatItIsMadeOf) {
  for (const char* name : names) {
    for (int use = 0; use < 3; ++use) expect_up_to_date();
    find(name).copy_from(noise(find(name).shape(), stream++));
    for (int use = 0; use < 3; ++use) expect_up_to_date();
  }
}

TEST_F(Folded, GoesThroughTheFoldWhereThereIsAGradient) {
  for (int use = 0; use < 3; ++use) expect_up_to_date();
  Tape tape;
  Context context = Context::current();
  context.tape = &tape;
  context.training = true;
  const ContextScope scope(context);
  const Tensor y = conv(x);
  tape.backward({y}, {Tensor::full(y.shape(), 1, DType::f32)});
  for (const char* name : {"conv.weight", "bn.weight", "bn.bias"})
    EXPECT_TRUE(find(name).grad().defined()) << name;
}

TEST_F(Folded, IsKeptFromTheSecondUseOn) {
  const auto live = [] { return memory_stats(Device()).live_bytes; };
  const int64_t before = live();
  conv(x);
  EXPECT_EQ(live(), before);
  conv(x);
  const int64_t kept = live();
  EXPECT_GT(kept, before);
  conv(x);
  EXPECT_EQ(live(), kept);
  find("bn.bias").touch();
  conv(x);
  EXPECT_EQ(live(), before);
}

}  // namespace
}  // namespace mixpl
