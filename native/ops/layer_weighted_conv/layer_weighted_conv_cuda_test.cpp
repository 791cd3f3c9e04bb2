// One op over two devices; its convolution has tests of its own.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/philox.h"
#include "ops/layer_weighted_conv/layer_weighted_conv.h"

namespace mixpl {
namespace {

Tensor normals(const Shape& shape, uint64_t seed) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = random.normal(i);
  return t;
}

// The result, and the gradients of all three inputs; on the host.
std::vector<Tensor> run(int64_t images, int64_t layers, int64_t per, int64_t k, Device device) {
  Tape tape;
  Context context;
  context.device = device;
  context.tape = &tape;
  ContextScope scope(context);
  std::vector<Tensor> inputs{normals({images, 3, 2, layers * per}, 1),
                             normals({k, 1, 1, layers * per}, 2),
                             normals({images, 1, 1, layers}, 3)};
  for (Tensor& t : inputs) t = t.to(device).set_requires_grad(true);
  const Tensor y = layer_weighted_conv(inputs[0], inputs[1], inputs[2]);
  tape.backward({y}, {normals(y.shape(), 4).to(device)});
  std::vector<Tensor> results{y};
  for (const Tensor& t : inputs) results.push_back(t.grad());
  for (Tensor& t : results) t = t.to(Device::cpu());
  return results;
}

TEST(LayerWeightedConvCuda, AgreesWithTheCpu) {
  if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  for (const auto& [images, layers, per, k] :
       {std::array<int64_t, 4>{2, 6, 8, 70}, {3, 1, 5, 3}, {1, 3, 1, 1}}) {
    const auto want = run(images, layers, per, k, Device::cpu()),
               got = run(images, layers, per, k, Device::cuda(0));
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].shape(), want[i].shape()) << i;
      for (int64_t j = 0; j < want[i].numel(); ++j) {
        const float w = want[i].data<float>()[j];
        ASSERT_NEAR(got[i].data<float>()[j], w, 1e-5 * std::max(8.0f, std::abs(w))) << i;
      }
    }
  }
}

}  // namespace
}  // namespace mixpl
