// The same arithmetic on both devices: the same bits, but for the sum in gamma's gradient.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/philox.h"
#include "ops/fold_batch_norm/fold_batch_norm.h"

namespace mixpl {
namespace {

Tensor uniforms(const Shape& shape, uint64_t seed, float low, float high) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = low + (high - low) * random.uniform(i);
  return t;
}

// Folded weight, bias, and the gradients of weight, gamma and beta; on the host.
std::vector<Tensor> run(const Shape& shape, Device device, bool weight_only) {
  Tape tape;
  Context context;
  context.device = device;
  context.tape = &tape;
  ContextScope scope(context);
  const Shape filters{shape[0]};
  Tensor weight = uniforms(shape, 1, -1, 1).to(device),
         gamma = uniforms(filters, 2, -1, 1).to(device),
         beta = uniforms(filters, 3, -1, 1).to(device);
  const Tensor mean = uniforms(filters, 4, -1, 1).to(device),
               variance = uniforms(filters, 5, 0.1f, 3).to(device);
  weight.set_requires_grad(true);
  if (!weight_only) gamma.set_requires_grad(true), beta.set_requires_grad(true);
  const auto [folded, bias] = fold_batch_norm(weight, gamma, beta, mean, variance, 1e-3f);
  std::vector<Tensor> roots{folded}, seeds{uniforms(shape, 6, -1, 1).to(device)};
  if (!weight_only) {
    roots.push_back(bias);
    seeds.push_back(uniforms(filters, 7, -1, 1).to(device));
  }
  tape.backward(roots, seeds);
  std::vector<Tensor> results{folded, bias, weight.grad(), gamma.grad(), beta.grad()};
  for (Tensor& t : results)
    if (t.defined()) t = t.to(Device::cpu());
  return results;
}

TEST(FoldBatchNormCuda, AgreesWithTheCpu) {
  if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  for (const Shape& shape :
       {Shape{5, 3, 3, 70}, Shape{1, 1, 1, 1}, Shape{3, 0}, Shape{0, 3, 3, 2}, Shape{300, 2}})
    for (bool weight_only : {false, true}) {
      SCOPED_TRACE(testing::Message() << shape << weight_only);
      const auto want = run(shape, Device::cpu(), weight_only),
                 got = run(shape, Device::cuda(0), weight_only);
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(got[i].defined(), want[i].defined()) << i;
        if (!want[i].defined()) continue;
        ASSERT_EQ(got[i].shape(), want[i].shape()) << i;
        for (int64_t j = 0; j < want[i].numel(); ++j)
          ASSERT_NEAR(got[i].data<float>()[j], want[i].data<float>()[j], i == 3 ? 1e-5 : 0) << i;
      }
    }
}

}  // namespace
}  // namespace mixpl
