#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "core/context.h"
#include "core/normals_test.h"
#include "nn/dropout.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "ops/relu/relu.h"

namespace mixpl {
namespace {

std::vector<std::string> names_of(const ParameterStore& store) {
  std::vector<std::string> names;
  for (const Parameter& p : store.all()) names.push_back(p.name);
  return names;
}

TEST(DropPath, DropsWholeSamplesByDrawsOfItsOwnPlace) {
  Context context = Context::current();
  context.training = true;
  context.random = {5, 0};
  const ContextScope scope(context);
  const Tensor x = Tensor::full({256, 3}, 1, DType::f32);
  const auto kept = [](const Tensor& y) {
    const std::vector<float> values = y.to_vector<float>();
    std::vector<bool> kept;
    for (size_t i = 0; i < values.size(); i += 3) {
      EXPECT_TRUE(values[i] == 0 || values[i] == 2);
      EXPECT_TRUE(values[i] == values[i + 1] && values[i] == values[i + 2]);
      kept.push_back(values[i] > 0);
    }
    return kept;
  };
  const DropPath path(0.5f, 4);
  EXPECT_EQ(kept(path(x)), kept(path(x)));
  EXPECT_NE(kept(path(x)), kept(path(x, 1)));
  EXPECT_EQ(kept(path(x, 1)), kept(DropPath(0.5f, 5)(x)));
  const Tensor rows = Tensor::full({256}, 1, DType::f32);
  EXPECT_NE(Dropout(0.5f, 4)(rows).to_vector<float>(), path(rows).to_vector<float>());
  context.training = false;
  const ContextScope evaluation(context);
  EXPECT_TRUE(path(x).same_as(x));
}

TEST(LayerNorm, HasParametersOfANorm) {
  ParameterStore store;
  const LayerNorm norm(Scope(store, 1), "norms.0", 6, 1e-3f);
  EXPECT_EQ(names_of(store), (std::vector<std::string>{"norms.0.weight", "norms.0.bias"}));
  for (const Parameter& p : store.all()) {
    EXPECT_TRUE(p.norm && p.trainable) << p.name;
    EXPECT_EQ(p.value.shape(), Shape{6});
  }
  const Tensor x = normals({3, 6}, DType::f32, 1), residual = normals({3, 6}, DType::f32, 2);
  const Tensor gamma = Tensor::full({6}, 1, DType::f32), beta = Tensor::zeros({6}, DType::f32);
  EXPECT_EQ(norm(x).to_vector<float>(), layer_norm(x, gamma, beta, 1e-3f).to_vector<float>());
  EXPECT_EQ(norm(x, residual).to_vector<float>(),
            layer_norm(x, gamma, beta, 1e-3f, residual).to_vector<float>());
}

TEST(LayerNorm, GivesBothTermsOneGradient) {
  Tensor x = normals({5, 8}, DType::f32, 1), residual = normals({5, 8}, DType::f32, 2);
  x.set_requires_grad(true);
  residual.set_requires_grad(true);
  ParameterStore store;
  const LayerNorm norm(Scope(store, 1).frozen(), "norm", 8);
  Tape tape;
  Context context = Context::current();
  context.tape = &tape;
  Tensor y;
  {
    const ContextScope scope(context);
    y = norm(x, residual);
  }
  tape.backward({y}, {normals({5, 8}, DType::f32, 3)});
  EXPECT_TRUE(x.grad().same_as(residual.grad()));
  EXPECT_FALSE(store.find("norm.weight")->value.grad().defined());
}

struct FeedForwardOf : ::testing::TestWithParam<Activation> {
  FeedForwardOf() : layer(Scope(store, 7), "ffns.0", 4, 12, GetParam()) {}
  Tensor find(const std::string& name) { return store.find("ffns.0.layers." + name)->value; }
  Tensor activated(const Tensor& x) {
    const Tensor hidden = linear(x, find("0.0.weight"), find("0.0.bias"));
    return GetParam() == Activation::gelu ? gelu(hidden) : relu(hidden);
  }
  Tensor outer(const Tensor& x) { return linear(x, find("1.weight"), find("1.bias")); }

  ParameterStore store;
  FeedForward layer;
  Tensor x = normals({2, 3, 4}, DType::f32, 5);
};

TEST_P(FeedForwardOf, IsTwoProductsWithTheNamesOfMmdetection) {
  EXPECT_EQ(names_of(store),
            (std::vector<std::string>{"ffns.0.layers.0.0.weight", "ffns.0.layers.0.0.bias",
                                      "ffns.0.layers.1.weight", "ffns.0.layers.1.bias"}));
  EXPECT_EQ(find("0.0.weight").shape(), (Shape{12, 4}));
  EXPECT_EQ(find("1.weight").shape(), (Shape{4, 12}));
  const float bound = std::sqrt(6.0f / 16);
  for (const char* name : {"0.0.weight", "1.weight"})
    for (float w : find(name).to_vector<float>()) EXPECT_LE(std::fabs(w), bound);
  find("0.0.bias").copy_from(normals({12}, DType::f32, 8));
  find("1.bias").copy_from(normals({4}, DType::f32, 9));
  EXPECT_EQ(layer(x).to_vector<float>(), outer(activated(x)).to_vector<float>());
}

TEST_P(FeedForwardOf, DropsBehindTheActivationAndAtItsEnd) {
  const Tensor hidden = dropout(activated(x), 0.5f, {3, 10});
  EXPECT_EQ(layer(x, 0.5f, {3, 10}).to_vector<float>(),
            dropout(outer(hidden), 0.5f, {3, 11}).to_vector<float>());
  EXPECT_EQ(layer(x, 0, {3, 10}).to_vector<float>(), layer(x).to_vector<float>());
}

INSTANTIATE_TEST_SUITE_P(Activations, FeedForwardOf,
                         ::testing::Values(Activation::relu, Activation::gelu),
                         [](const auto& info) {
                           return info.param == Activation::gelu ? "Gelu" : "Relu";
                         });

}  // namespace
}  // namespace mixpl
