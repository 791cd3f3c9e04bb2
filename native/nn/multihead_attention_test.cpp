#include "nn/multihead_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/context.h"
#include "core/philox.h"
#include "ops/linear/linear.h"
#include "ops/weight_rows/weight_rows.h"

namespace mixpl {
namespace {

Tensor normals(const Shape& shape, uint64_t stream) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random(7, stream);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t;
}

float largest(const Tensor& t) {
  float most = 0;
  for (float v : t.to_vector<float>()) most = std::max(most, std::abs(v));
  return most;
}

TEST(MultiheadAttention, HasTorchsParametersAndStart) {
  ParameterStore store;
  const MultiheadAttention attention(Scope(store, 1), "self_attn", 64, 8);
  std::vector<std::string> names;
  for (const Parameter& p : store.all()) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{
                       "self_attn.attn.in_proj_weight", "self_attn.attn.in_proj_bias",
                       "self_attn.attn.out_proj.weight", "self_attn.attn.out_proj.bias"}));
  // Bounds of uniform numbers: sqrt(6 / (E + 3 E)) and sqrt(1 / E).
  EXPECT_NEAR(largest(store.all()[0].value), std::sqrt(6.0 / 256), 1e-3);
  EXPECT_EQ(largest(store.all()[1].value), 0);
  EXPECT_NEAR(largest(store.all()[2].value), std::sqrt(1.0 / 64), 1e-3);
  EXPECT_EQ(largest(store.all()[3].value), 0);
}

TEST(MultiheadAttention, IsTheSameByOneProductOrSeveral) {
  ParameterStore store;
  const MultiheadAttention attention(Scope(store, 1), "attn", 32, 2);
  const Tensor x = normals({2, 11, 32}, 1), other = normals({2, 11, 32}, 2);
  const Tensor dout = normals({2, 11, 32}, 3);
  const auto run = [&](const Tensor& query, const Tensor& key, const Tensor& value) {
    Tape tape;
    Context context = Context::current();
    context.tape = &tape;
    const ContextScope scope(context);
    const Tensor out = attention(query, key, value);
    tape.backward({out}, {dout.clone()});
    std::vector<std::vector<float>> values{out.to_vector<float>()};
    for (Parameter& p : store.all()) {
      values.push_back(p.value.grad().to_vector<float>());
      p.value.set_grad(Tensor());
    }
    return values;
  };
  const auto expect_equal = [](const auto& got, const auto& want) {
    for (size_t t = 0; t < want.size(); ++t)
      for (size_t i = 0; i < want[t].size(); ++i)
        ASSERT_NEAR(got[t][i], want[t][i], 2e-5) << t << ", " << i;
  };
  expect_equal(run(x, x, x), run(x, x.clone(), x.clone()));
  expect_equal(run(x, x, other), run(x, x.clone(), other));
}

// Uses of the same rows by several passes of one tape do not meet in the rows.
TEST(WeightRows, GathersTheGradientsOfAllUses) {
  Tensor weight = normals({6, 16}, 1);
  weight.set_requires_grad(true);
  const Tensor x = normals({5, 16}, 2), dy = normals({5, 2}, 3);
  Tape tape;
  Context context = Context::current();
  context.tape = &tape;
  const ContextScope scope(context);
  std::vector<Tensor> ys, dys;
  for (const int64_t begin : {0, 2, 2, 4, 2}) {
    ys.push_back(linear(x, weight_rows(weight, begin, begin + 2), {}));
    dys.push_back(dy.clone());
  }
  tape.backward(ys, dys);
  const float* got = weight.grad().data<float>();
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t c = 0; c < 16; ++c) {
      float want = 0;
      for (int64_t i = 0; i < 5; ++i)
        want += dy.data<float>()[i * 2 + row % 2] * x.data<float>()[i * 16 + c];
      EXPECT_NEAR(got[row * 16 + c], want * (row / 2 == 1 ? 3.0f : 1.0f), 1e-4);
    }
}

TEST(WeightRows, FollowsItsParameter) {
  Tensor weight = normals({4, 16}, 1);
  const Tensor rows = weight_rows(weight, 1, 3);
  EXPECT_TRUE(rows.same_as(weight_rows(weight, 1, 3)));
  weight.copy_from(normals({4, 16}, 2));
  const std::vector<float> values = weight.to_vector<float>();
  EXPECT_EQ(weight_rows(weight, 1, 3).to_vector<float>(),
            std::vector<float>(values.begin() + 16, values.begin() + 48));
}

}  // namespace
}  // namespace mixpl
