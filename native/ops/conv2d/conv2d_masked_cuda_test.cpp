// What a ReLU takes of its gradient, left out by the product that makes the gradient.
#include <gtest/gtest.h>

#include "autograd/tape.h"
#include "core/cuda/emulation_settings.h"
#include "core/cuda/runtime.h"
#include "core/philox.h"
#include "ops/conv2d/conv2d.h"
#include "ops/conv2d/gemm_settings_cuda.h"
#include "ops/max_pool2d/max_pool2d.h"

namespace mixpl {
namespace {

Tensor noise(const Shape& shape, uint64_t seed, Device device, DType type, float by = 1) {
  Tensor t = Tensor::empty(shape, DType::f32);
  const Philox random{seed, 0};
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = by * (random.uniform(i) - 0.5f);
  return t.to(device).to(type);
}

Conv2dOptions with_relu(int kernel, int stride = 1) {
  Conv2dOptions options;
  options.padding = kernel / 2;
  options.stride = stride;
  options.relu = true;
  return options;
}

struct Weights {
  Device device;
  std::vector<Tensor> all;
  Tensor make(const Shape& shape) {
    const float by = 2.0f / static_cast<float>(shape.numel() / shape[0]);
    Tensor w = noise(shape, 100 + all.size(), device, DType::f32, by * 8);
    w.set_requires_grad(true);
    all.push_back(w);
    return w;
  }
};

using Values = std::vector<std::vector<float>>;

// Of all weights and of x: a block with a shortcut, a smaller one with a shortcut that is
// convolved, and consumers of what is between that are no convolutions, before and after those that
// are.
Values of_blocks(Device device, DType type, int64_t height, int64_t width, int64_t c, bool bias) {
  Tape tape;
  Context context;
  context.device = device;
  context.compute = type;
  context.tape = &tape;
  const ContextScope scope(context);
  Weights w{device, {}};
  Tensor x = noise({2, height, width, c}, 1, device, type);
  x.set_requires_grad(true);
  const auto shift = [&](int64_t k) { return bias ? w.make({k}) : Tensor(); };
  const Tensor a = conv2d(x, w.make({c, 3, 3, c}), shift(c), with_relu(3));
  const Tensor early = max_pool2d(a, {3, 2, 1});
  const Tensor b = conv2d(a, w.make({c, 1, 1, c}), shift(c), with_relu(1));
  const Tensor d = conv2d(b, w.make({c, 3, 3, c}), shift(c), with_relu(3), a);
  const Tensor half = conv2d(d, w.make({2 * c, 3, 3, c}), shift(2 * c), with_relu(3, 2));
  Conv2dOptions plain = with_relu(1, 2);
  plain.relu = false;
  const Tensor shortcut = conv2d(d, w.make({2 * c, 1, 1, c}), shift(2 * c), plain);
  const Tensor e = conv2d(half, w.make({2 * c, 1, 1, 2 * c}), shift(2 * c), with_relu(1), shortcut);
  const Tensor late = max_pool2d(d, {3, 2, 1});
  std::vector<Tensor> roots{early, e, late}, seeds;
  for (const Tensor& root : roots) seeds.push_back(noise(root.shape(), 7, device, type));
  tape.backward(roots, seeds);
  Values all{x.grad().to(DType::f32).to_vector<float>()};
  for (const Tensor& weight : w.all) all.push_back(weight.grad().to_vector<float>());
  return all;
}

// A tower over levels, one of them empty, with an output that only some are asked for.
Values of_tower(Device device, DType type, int64_t height, int64_t width, int64_t c) {
  Tape tape;
  Context context;
  context.device = device;
  context.compute = type;
  context.tape = &tape;
  const ContextScope scope(context);
  Weights w{device, {}};
  std::vector<Tensor> xs;
  for (int64_t l = 0; l < 4; ++l) {
    xs.push_back(noise({l == 2 ? 0 : 2, height >> l, width >> l, c}, 3 + l, device, type));
    xs.back().set_requires_grad(true);
  }
  std::vector<Tensor> t = xs;
  for (int i = 0; i < 3; ++i) t = conv2d(t, w.make({c, 3, 3, c}), w.make({c}), with_relu(3));
  Conv2dOptions plain = with_relu(3);
  plain.relu = false;
  const std::vector<Tensor> one = conv2d(t, w.make({c + 3, 3, 3, c}), w.make({c + 3}), plain);
  const std::vector<Tensor> other = conv2d(t, w.make({5, 3, 3, c}), w.make({5}), plain);
  std::vector<Tensor> roots(one), seeds;
  roots.push_back(other[0]);
  for (const Tensor& root : roots) seeds.push_back(noise(root.shape(), 9, device, type));
  tape.backward(roots, seeds);
  Values all;
  for (const Tensor& x : xs) all.push_back(x.grad().to(DType::f32).to_vector<float>());
  for (const Tensor& weight : w.all) all.push_back(weight.grad().to_vector<float>());
  return all;
}

struct Conv2dMaskedCuda : testing::Test {
  const bool kFused = cuda::plan::fused_masks;
  void SetUp() override {
    if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
  }
  void TearDown() override { cuda::plan::fused_masks = kFused; }

  template <typename F>
  void same_bits(F&& gradients) {
    cuda::plan::fused_masks = false;
    const Values apart = gradients();
    cuda::plan::fused_masks = true;
    const Values fused = gradients();
    ASSERT_EQ(apart.size(), fused.size());
    double sum = 0;
    for (size_t i = 0; i < apart.size(); ++i) {
      EXPECT_EQ(apart[i], fused[i]) << "gradient " << i;
      for (float v : apart[i]) sum += std::abs(v);
    }
    EXPECT_GT(sum, 0);
  }
};

TEST_F(Conv2dMaskedCuda, HasTheBitsOfAPassOfItsOwn) {
  const Device device = Device::cuda(0);
  for (DType type : {DType::f32, DType::bf16})
    for (int64_t c : {16, 6})
      for (bool bias : {false, true}) {
        SCOPED_TRACE(testing::Message() << type << " " << c << (bias ? ", bias" : ""));
        same_bits([&] { return of_blocks(device, type, 9, 7, c, bias); });
        same_bits([&] { return of_tower(device, type, 9, 8, c); });
      }
}

TEST_F(Conv2dMaskedCuda, HasThemInTilesThatTheHardwareCopies) {
  if (cuda::is_emulated() || !cuda::has_warpgroups())
    GTEST_SKIP() << "for GPUs of compute capability 9.0";
  const Device device = Device::cuda(0);
  for (int64_t c : {64, 128, 256}) {
    SCOPED_TRACE(c);
    same_bits([&] { return of_blocks(device, DType::bf16, 100, 167, c, true); });
    same_bits([&] { return of_tower(device, DType::bf16, 100, 167, c); });
  }
}

TEST_F(Conv2dMaskedCuda, SavesLaunches) {
  if (!cuda::is_emulated()) GTEST_SKIP() << "launches are counted on the emulated device";
  const auto launches = [](bool fused) {
    cuda::plan::fused_masks = fused;
    for (int64_t n = 0;; ++n) {
      bool failed = false;
      cuda::EmulatedFaults faults;
      faults.launches_to_fail = n;
      cuda::set_emulated_faults(faults);
      try {
        of_blocks(Device::cuda(0), DType::bf16, 4, 4, 8, false);
      } catch (const DeviceError&) {
        failed = true;
      }
      cuda::set_emulated_faults({});
      if (!failed) return n;
    }
  };
  // b's and half's, which a convolution alone reads, and d's, to whose gradient one adds last; not
  // a's, to which pooling adds last, nor e's, which is given.
  EXPECT_EQ(launches(false) - launches(true), 3);
}

}  // namespace
}  // namespace mixpl
