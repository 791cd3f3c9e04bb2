// A small network trained on both devices: the same losses, the same bits on every run, nothing new
// allocated once warm, and the GPU waited for once a step (loss and gradient norm).
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/allocator.h"
#include "nn/conv.h"
#include "nn/parameters.h"
#include "ops/scaled_sum/scaled_sum.h"
#include "ops/sigmoid_bce/sigmoid_bce.h"
#include "optim/optimizer.h"

namespace mixpl {
namespace {

struct Network {
  ParameterStore store;
  std::vector<ConvNorm> layers;

  explicit Network(uint64_t seed) {
    const Scope scope(store, seed);
    const auto layer = [&](const char* name, int64_t in, int64_t out, int stride, NormKind norm) {
      ConvSpec spec;
      spec.in = in;
      spec.out = out;
      spec.stride = stride;
      spec.norm = norm;
      spec.relu = out > 1;
      spec.gn_groups = 4;
      spec.init = init::kaiming_normal_fan_out();
      layers.emplace_back(scope, name, str(name, "_norm"), spec);
    };
    layer("stem", 3, 8, 2, NormKind::bn);
    layer("tower", 8, 8, 1, NormKind::gn);
    layer("head", 8, 1, 1, NormKind::none);
  }

  Tensor loss(const Tensor& images, const Tensor& target, const Tensor& weight) {
    Tensor x = images;
    for (const ConvNorm& layer : layers) x = layer(x);
    return scaled_sum({sigmoid_bce(x, target, weight)}, 1.0f / static_cast<float>(x.numel()));
  }
};

struct Course {
  std::vector<float> losses, weights;
  int64_t allocations = 0, waits = 0;  // of the last step
};

Course train(Device device, DType compute) {
  Context context;
  context.device = device;
  context.compute = compute;
  context.training = true;
  Tape tape;
  context.tape = &tape;
  ContextScope scope(context);

  Network network(5);
  std::vector<OptimizerTarget> targets;
  for (Parameter& p : network.store.all())
    if (p.trainable) targets.push_back({p.name, p.value, 1, 1e-4f});
  const auto optimizer = create_optimizer(Options(R"({"clipNorm": 5})", "optimizer"), targets);

  // A blob brighter than its surroundings is to be found.
  std::vector<float> pixels(2 * 12 * 10 * 3), wanted(2 * 6 * 5), ones(2 * 6 * 5, 1.0f);
  const Philox random{11, 0};
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = random.normal(i);
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i] = i % 7 == 0;
    if (wanted[i] == 0) continue;
    const size_t n = i / 30, y = i / 5 % 6, x = i % 5;
    for (size_t k = 0; k < 3; ++k) pixels[((n * 12 + 2 * y) * 10 + 2 * x) * 3 + k] += 3;
  }
  const Tensor images = Tensor::from(pixels, {2, 12, 10, 3}, device).to(compute);
  const Tensor target = Tensor::from(wanted, {2, 6, 5, 1}, device);
  const Tensor weight = Tensor::from(ones, {2, 6, 5, 1}, device);

  Course run;
  for (int step = 0; step < 8; ++step) {
    const MemoryStats before = memory_stats(device);
    const Tensor loss = network.loss(images, target, weight);
    tape.backward({loss}, {Tensor::full({}, 1, DType::f32, device)});
    const StepReport report = optimizer->step(0.1, {loss});
    EXPECT_TRUE(report.taken);
    run.losses.push_back(report.losses[0]);
    for (Parameter& p : network.store.all()) p.value.set_grad(Tensor());
    const MemoryStats after = memory_stats(device);
    run.allocations = after.system_allocations - before.system_allocations;
    run.waits = after.synchronisations - before.synchronisations;
  }
  for (const Parameter& p : network.store.all())
    for (float v : p.value.to_vector<float>()) run.weights.push_back(v);
  return run;
}

TEST(Training, IsTheSameOnBothDevices) {
  if (!cuda_reason().empty()) GTEST_SKIP() << cuda_reason();
  for (DType compute : {DType::f32, DType::bf16}) {
    const Course cpu = train(Device::cpu(), compute), gpu = train(Device::cuda(0), compute);
    const float tolerance = compute == DType::f32 ? 1e-3f : 3e-2f;
    for (size_t i = 0; i < cpu.losses.size(); ++i)
      EXPECT_NEAR(gpu.losses[i], cpu.losses[i], tolerance) << "step " << i;
    EXPECT_LT(gpu.losses.back(), 0.7f * gpu.losses.front());
    ASSERT_EQ(gpu.weights.size(), cpu.weights.size());
    EXPECT_EQ(gpu.allocations, 0);
    EXPECT_EQ(gpu.waits, 1);

    const Course again = train(Device::cuda(0), compute);
    EXPECT_EQ(again.losses, gpu.losses);
    EXPECT_EQ(again.weights, gpu.weights);
  }
}

}  // namespace
}  // namespace mixpl
