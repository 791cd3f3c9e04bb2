// Maps so large that a thread takes several items, whose place in a row it carries on.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/philox.h"
#include "ops/focal_loss/focal_loss.h"

namespace mixpl {
namespace {

struct Result {
  float loss;
  std::vector<float> slopes;
};
Result run(Device device, int64_t rows, int64_t classes) {
  Tape tape;
  Context context;
  context.device = device;
  context.tape = &tape;
  const ContextScope scope(context);
  std::vector<float> x(rows * classes), factor{0.5f, 2};
  std::vector<int32_t> label(rows);
  const Philox random{1, 0};
  for (size_t i = 0; i < x.size(); ++i) x[i] = 4 * random.uniform(i) - (i % 5 == 0 ? 1.0f : 4.0f);
  for (int64_t i = 0; i < rows; ++i) label[i] = static_cast<int32_t>(i * 7 % (classes + 2)) - 1;
  Tensor logits = Tensor::from(x, {rows, classes}, device).to(DType::bf16);
  logits.set_requires_grad(true);
  const Tensor loss = sigmoid_focal_loss(logits, Tensor::from(label, {rows}, device), classes, {},
                                         Tensor::from(factor, {2}, device));
  tape.backward({loss}, {Tensor::full({}, 1, DType::f32, device)});
  return {loss.item(), logits.grad().to(DType::f32).to_vector<float>()};
}

TEST(FocalLossCuda, CarriesItsPlaceFromItemToItem) {
  if (const std::string why = cuda_reason(); !why.empty()) GTEST_SKIP() << why;
  // Beyond 2112 blocks of 256 threads with 8 entries each; a last item that is not whole.
  const int64_t classes = 91, rows = 2 * (2112 * 256 * 8 / classes / 2 + 301);
  const Result want = run(Device::cpu(), rows, classes), got = run(Device::cuda(0), rows, classes);
  EXPECT_NEAR(got.loss, want.loss, 2e-6 * want.loss);
  ASSERT_EQ(got.slopes.size(), want.slopes.size());
  int64_t wrong = 0;
  for (size_t i = 0; i < want.slopes.size(); ++i)
    wrong += !(std::fabs(got.slopes[i] - want.slopes[i]) <= std::fabs(want.slopes[i]) / 128);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace mixpl
